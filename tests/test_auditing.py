"""`edgeprivacy.audit` against the bare interpreter and scikit-learn, on a file made outside the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import edgeprivacy
from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import read_facts
from edgeprivacy.errors import ArtifactError, DataError, UsageError
from edgeprivacy.found_facts import found_format
from edgeprivacy.results import Audit

QUICK = {"attacks": ("confidence.global",), "resamples": 100}


def rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as data:
        return data["x"], data["y"]


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    """What a float file answers, one row at a time, by the interpreter itself."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra litert")
    interpreter = interpreter_module.Interpreter(str(path))
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for row in x:
        interpreter.set_tensor(into["index"], row[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(out["index"])[0].copy())
    return np.stack(answers)


def shown(audit: Audit) -> dict[str, Any]:
    """Everything that must not differ from run to run."""
    content = audit.to_dict()
    del content["environment"]
    return content


def test_numbers_are_those_of_the_bare_interpreter(leaky: Any, tmp_path: Path) -> None:
    audit = edgeprivacy.audit(
        leaky.files["float32"], leaky.members, leaky.nonmembers, out=tmp_path / "out", resamples=100
    )
    (artifact,) = audit.artifacts
    (x_in, y_in), (x_out, y_out) = rows(leaky.members), rows(leaky.nonmembers)
    p_in, p_out = outputs(leaky.files["float32"], x_in), outputs(leaky.files["float32"], x_out)
    utility = artifact.utility
    assert utility.train_accuracy and utility.train_accuracy.value == pytest.approx(
        (p_in.argmax(axis=1) == y_in).mean(), abs=1e-6
    )
    assert utility.test_accuracy and utility.test_accuracy.value == pytest.approx(
        (p_out.argmax(axis=1) == y_out).mean(), abs=1e-6
    )
    folder = tmp_path / "out" / "confidences"
    scored = Confidences.load(folder / "float32.nonmembers.npz")
    population = Confidences.load(folder / "float32.population.npz")
    assert len(population.labels) == 125 == audit.split["counts"]["population"]
    assert not set(scored.row_ids) & set(population.row_ids)
    assert set(scored.row_ids) | set(population.row_ids) == {f"nonmembers:{n}" for n in range(500)}
    where = [int(row_id.split(":")[1]) for row_id in scored.row_ids.tolist()]
    truth = np.repeat([True, False], [300, 375])
    p_y = np.concatenate([p_in[np.arange(300), y_in], p_out[where, y_out[where]]])
    attack = artifact.attack("confidence.global")
    assert attack is not None and attack.auc is not None
    assert (attack.n_members, attack.n_nonmembers) == (300, 375)
    assert attack.auc.value == pytest.approx(roc_auc_score(truth, p_y), abs=2e-5)
    assert attack.auc.value > 0.65  # the fixture leaks, or the tests below show nothing
    ranks = [(p_y[i] > p_z) + (p_y[i] == p_z) / 2 for i, p_z in enumerate([_p_y(population)] * len(p_y))]
    attack_p = artifact.attack("attack-p")
    assert attack_p is not None and attack_p.auc is not None
    assert attack_p.auc.value == pytest.approx(roc_auc_score(truth, np.mean(ranks, axis=1)), abs=2e-3)
    skipped = {entry.name: entry.skipped for entry in artifact.attacks if entry.skipped}
    assert set(skipped) >= {"lira.online", "lira.offline", "rmia.offline"}
    assert all("shadows" in (reason or "") for reason in skipped.values())
    balanced = attack.balanced_accuracy
    assert balanced is not None and balanced.threshold == "cross-fit"
    assert Audit.load(tmp_path / "out" / "audit.json").to_dict() == audit.to_dict()
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert (artifact.sha256, artifact.size_bytes) == (
        read_facts(leaky.files["float32"]).sha256,
        leaky.files["float32"].stat().st_size,
    )


def _p_y(confidences: Confidences) -> np.ndarray:
    return confidences.probabilities[np.arange(len(confidences.labels)), confidences.labels]


def test_arrays_and_files_and_runs_give_the_same_audit(leaky: Any, tmp_path: Path) -> None:
    file = leaky.files["float32"]
    by_path = edgeprivacy.audit(file, leaky.members, leaky.nonmembers, out=tmp_path / "a", **QUICK)
    again = edgeprivacy.audit(file, leaky.members, leaky.nonmembers, out=tmp_path / "a", **QUICK)
    assert shown(by_path) == shown(again)
    by_array = edgeprivacy.audit(
        file, rows(leaky.members), rows(leaky.nonmembers), out=tmp_path / "b", **QUICK
    )
    assert by_array.artifacts == by_path.artifacts
    assert by_array.split["sha256"] == by_path.split["sha256"]
    assert "cannot be loaded twice" in null_test(by_array, "queried-twice").detail
    other = edgeprivacy.audit(file, leaky.members, leaky.nonmembers, out=tmp_path / "c", seed=1, **QUICK)
    assert other.split["sha256"] != by_path.split["sha256"]  # another population


def null_test(audit: Audit, name: str) -> Any:
    return next(test for test in audit.null_tests if test.name == name)


def test_several_files_stand_in_one_report_on_the_same_rows(leaky: Any, tmp_path: Path) -> None:
    twin = tmp_path / "float32.tflite"
    twin.write_bytes(leaky.files["int8"].read_bytes())
    audit = edgeprivacy.audit(
        [leaky.files["float32"], twin],
        leaky.members,
        leaky.nonmembers,
        out=tmp_path / "out",
        fail_if=["auc>0.5 for artifact=float32-2"],
        **QUICK,
    )
    first, second = audit.artifacts
    assert (first.name, second.name) == ("float32", "float32-2")
    assert (first.format, second.format) == ("float32", "int8")
    assert audit.verdict == "fail" and audit.exit_code == 1
    # 1/256 is the step of every int8 softmax: half of it is where its logarithm ends.
    assert second.run["log_floor"] == 1 / 512 and first.run["log_floor"] < 1e-20
    alone = edgeprivacy.audit(twin, leaky.members, leaky.nonmembers, out=tmp_path / "alone", **QUICK)
    assert alone.artifacts[0].attacks == second.attacks


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8"])
def test_the_format_is_read_from_the_file(leaky: Any, name: str) -> None:
    assert found_format(read_facts(leaky.files[name])) == name


def test_null_members_decide_whether_the_pipeline_is_believed(leaky: Any, tmp_path: Path) -> None:
    def run(null: Any, folder: str) -> Audit:
        return edgeprivacy.audit(
            leaky.files["float32"],
            leaky.members,
            leaky.nonmembers,
            null_members=null,
            out=tmp_path / folder,
            fail_if=["auc>0.99"],
            **QUICK,
        )

    honest = run(leaky.held_out, "honest")
    assert null_test(honest, "held-out-as-members").passed is True
    assert (honest.verdict, honest.exit_code) == ("pass", 0)
    x, y = rows(leaky.held_out)
    treated = tmp_path / "treated.npz"
    np.savez(treated, x=3 * x, y=y)  # what a transform on the members' side alone would do to them
    confounded = run(treated, "confounded")
    assert confounded.null_tests[0].name == "held-out-as-members"
    assert confounded.null_tests[0].passed is False
    assert (confounded.verdict, confounded.exit_code) == ("inconclusive", 3)
    without = edgeprivacy.audit(
        leaky.files["float32"], leaky.members, leaky.nonmembers, out=tmp_path / "without", **QUICK
    )
    missing = null_test(without, "held-out-as-members")
    assert missing.passed is None and "unseen" in missing.detail


FACTORY = """
import numpy as np

def rows(part):
    with np.load(FOLDER + "/" + {"null_members": "held_out"}.get(part, part) + ".npz") as data:
        return data["x"], data["y"]

def one_way(part, path):
    x, y = rows(part)
    return (3 * x, y) if path == "members" else (x, y)

def two_ways(part):
    return rows(part)
"""


def test_null_members_go_through_the_members_loader(leaky: Any, tmp_path: Path) -> None:
    source = tmp_path / "data.py"
    source.write_text(FACTORY.replace("FOLDER", repr(str(leaky.folder))))

    def run(function: str) -> Audit:
        place = f"{source}:{function}"
        return edgeprivacy.audit(
            leaky.files["float32"], place, place, null_members=place, out=tmp_path / function, **QUICK
        )

    caught = run("one_way")
    assert null_test(caught, "held-out-as-members").passed is False and caught.exit_code == 3
    unknown = null_test(run("two_ways"), "held-out-as-members")
    assert unknown.passed is None and 'load(part="null_members", path="members")' in unknown.detail
    mixed = edgeprivacy.audit(
        leaky.files["float32"],
        leaky.members,
        leaky.nonmembers,
        null_members=rows(leaky.held_out),
        out=tmp_path / "mixed",
        **QUICK,
    )
    assert null_test(mixed, "held-out-as-members").passed is None


def test_a_random_transform_on_the_way_is_caught(leaky: Any, tmp_path: Path) -> None:
    source = tmp_path / "random_data.py"
    source.write_text(
        FACTORY.replace("FOLDER", repr(str(leaky.folder)))
        + "\ndef noisy(part):\n    x, y = rows(part)\n"
        + "    return x + np.random.default_rng().normal(0, 1e-3, x.shape), y\n"
    )
    place = f"{source}:noisy"
    audit = edgeprivacy.audit(leaky.files["float32"], place, place, out=tmp_path / "out", **QUICK)
    assert null_test(audit, "queried-twice").passed is False and audit.exit_code == 3


def test_members_that_differ_in_their_inputs_are_caught(leaky: Any, tmp_path: Path) -> None:
    x, y = rows(leaky.nonmembers)
    audit = edgeprivacy.audit(
        leaky.files["float32"],
        leaky.members,
        (x + 1, y),
        out=tmp_path / "out",
        **QUICK,
    )
    assert null_test(audit, "blind-classifier").passed is False and audit.exit_code == 3


def test_rows_on_two_sides(leaky: Any, tmp_path: Path) -> None:
    (x_in, y_in), (x_out, y_out) = rows(leaky.members), rows(leaky.nonmembers)
    file = leaky.files["float32"]
    both = (np.concatenate([x_out, x_in[:7]]), np.concatenate([y_out, y_in[:7]]))
    with pytest.raises(DataError, match="7 of 507 rows stand among both"):
        edgeprivacy.audit(file, (x_in, y_in), both, out=tmp_path / "o", **QUICK)
    ids_in, ids_out = np.arange(300), np.arange(299, 799)
    with pytest.raises(DataError, match="1 with the same id, 0 with the same content"):
        edgeprivacy.audit(file, (x_in, y_in, ids_in), (x_out, y_out, ids_out), out=tmp_path / "o", **QUICK)
    with pytest.raises(DataError, match="3 of 3 null members also stand among the members"):
        edgeprivacy.audit(
            file, (x_in, y_in), (x_out, y_out), null_members=(x_in[:3], y_in[:3]), out=tmp_path / "o"
        )
    assert not (tmp_path / "o").exists()  # nothing was begun
    audit = edgeprivacy.audit(
        file,
        (x_in, y_in),
        both,
        null_members=(np.concatenate([x_in[:3], x_out[:2] + 9]), np.zeros(5, dtype=int)),
        out=tmp_path / "o",
        drop_overlap=True,
        **QUICK,
    )
    assert audit.split["dropped"] == {"nonmembers": 7, "null_members": 3}
    assert audit.split["counts"] == {"members": 300, "nonmembers": 375, "population": 125, "null_members": 2}
    assert any(note.startswith("7 non-members") for note in audit.notes)


def test_an_output_folder_belongs_to_one_audit(leaky: Any, tmp_path: Path) -> None:
    arguments: Any = (leaky.files["float32"], leaky.members, leaky.nonmembers)
    edgeprivacy.audit(*arguments, out=tmp_path / "out", **QUICK)
    edgeprivacy.audit(*arguments, out=tmp_path / "out", fail_if=["auc>0.9"], **QUICK)  # a gate may change
    with pytest.raises(UsageError, match="belongs to another"):
        edgeprivacy.audit(*arguments, out=tmp_path / "out", seed=5, **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UsageError, match="holds other files"):
        edgeprivacy.audit(*arguments, out=tmp_path / "mine", **QUICK)


def test_mistakes_are_told_before_anything_runs(leaky: Any, tmp_path: Path) -> None:
    file, out = leaky.files["float32"], tmp_path / "out"
    sides = (leaky.members, leaky.nonmembers)
    with pytest.raises(UsageError, match=r"did you mean 'confidence'"):
        edgeprivacy.audit(file, *sides, attacks=["confidense"], out=out)
    with pytest.raises(UsageError, match="unknown metric"):
        edgeprivacy.audit(file, *sides, fail_if=["aux>0.5"], out=out)
    with pytest.raises(UsageError, match="unknown device"):
        edgeprivacy.audit(file, *sides, device="toaster", out=out)
    with pytest.raises(ArtifactError):
        edgeprivacy.audit(leaky.members, *sides, out=out)
    x, y = rows(leaky.members)
    with pytest.raises(DataError, match="out of range"):
        edgeprivacy.audit(file, (x, y + 2), leaky.nonmembers, out=out)
    with pytest.raises(DataError, match="differ in shape"):
        edgeprivacy.audit(file, (x[:, :5], y), leaky.nonmembers, out=out)
    with pytest.raises(DataError, match="too few rows"):
        edgeprivacy.audit(file, (x[:5], y[:5]), leaky.nonmembers, out=out)
    with pytest.raises(DataError, match="something else than rows"):
        edgeprivacy.audit(file, x, leaky.nonmembers, out=out)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no file"):
        edgeprivacy.audit([], *sides, out=out)
    assert not out.exists()


def test_logits_are_named_and_taken(leaky: Any, tmp_path: Path) -> None:
    sides = (leaky.members, leaky.nonmembers)
    with pytest.raises(DataError, match="--logits"):
        edgeprivacy.audit(leaky.files["logits"], *sides, out=tmp_path / "a", **QUICK)
    taken = edgeprivacy.audit(leaky.files["logits"], *sides, logits=True, out=tmp_path / "b", **QUICK)
    whole = edgeprivacy.audit(leaky.files["float32"], *sides, out=tmp_path / "c", **QUICK)
    ours, theirs = (audit.artifacts[0].attacks[0].auc for audit in (taken, whole))
    assert ours and theirs and ours.value == pytest.approx(theirs.value, abs=1e-3)
