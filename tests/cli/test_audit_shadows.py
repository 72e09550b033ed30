"""An audit with shadows given as real files, against plain loops over another library's outputs."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

import edgeprivacy
from edgeprivacy.errors import DataError, UsageError

POOL, RESERVED, SHADOWS, FEATURES = 320, 60, 9, 12
QUICK = {"attacks": ("lira.offline", "rmia.offline", "loss"), "resamples": 100}


@dataclass
class Lab:
    """Networks that learned noisy halves of one pool by heart; the last rows trained none of them.

    `trained` bool [1 + shadows, rows], the target first; `p_y` float64 [1 + shadows, rows] of scikit-learn.
    """

    folder: Path
    x: np.ndarray
    y: np.ndarray
    trained: np.ndarray
    p_y: np.ndarray

    def ids(self, rows: np.ndarray) -> np.ndarray:
        return np.array([f"row-{row}" for row in rows])

    def file(self, model: int, format_: str = "float32") -> Path:
        """0 is the target, 1 the first shadow."""
        return self.folder / f"{'target' if model == 0 else 'shadow'}-{format_}" / f"{model:02}.tflite"

    @property
    def shadows(self) -> list[Path]:
        return [self.file(model) for model in range(1, 1 + SHADOWS)]

    @property
    def order(self) -> np.ndarray:
        """Rows as members, then non-members."""
        return np.concatenate([np.flatnonzero(self.trained[0]), np.flatnonzero(~self.trained[0])])

    def save(self, name: str, **arrays: Any) -> Path:
        path = self.folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    def membership(self, **changed: Any) -> dict[str, Any]:
        return {"members": self.trained[1:], "ids": self.ids(np.arange(len(self.y))), **changed}

    @property
    def sides(self) -> tuple[Path, Path]:
        return self.folder / "members.npz", self.folder / "nonmembers.npz"


def export(model: MLPClassifier, x: np.ndarray, path: Path, keras: Any, int8: bool) -> None:
    import tensorflow as tf

    sizes = [weights.shape[1] for weights in model.coefs_]
    net = keras.Sequential(
        [
            keras.layers.Input((FEATURES,)),
            *[keras.layers.Dense(size, activation="relu") for size in sizes[:-1]],
            keras.layers.Dense(sizes[-1], activation="softmax"),
        ]
    )
    net.set_weights([part for pair in zip(model.coefs_, model.intercepts_, strict=True) for part in pair])
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in x[:100])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(converter.convert())


@pytest.fixture(scope="module")
def lab(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    rng = np.random.default_rng(21)
    rows = POOL + RESERVED
    y = rng.integers(0, 3, rows)
    x = (rng.normal(size=(3, FEATURES))[y] / 2 + rng.normal(size=(rows, FEATURES))).astype(np.float32)
    y = np.where(rng.random(rows) < 0.3, rng.integers(0, 3, rows), y)
    trained = rng.random((1 + SHADOWS, rows)) < 0.5
    trained[:, POOL:] = False
    # Every row of the pool trains a model or two: rows that trained none are then the reserved ones.
    for row in np.flatnonzero(~trained[1:, :POOL].any(axis=0)):
        trained[1 + rng.integers(SHADOWS), row] = True
    found = Lab(tmp_path_factory.mktemp("lab"), x, y, trained, np.empty(trained.shape))
    for number, mine in enumerate(trained):
        model = MLPClassifier((32,), alpha=0, learning_rate_init=0.01, max_iter=60, random_state=number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x[mine], y[mine])
        # scikit-learn ends in a softmax of three classes.
        found.p_y[number] = model.predict_proba(x)[np.arange(rows), y]
        export(model, x, found.file(number), keras, int8=False)
        if number < 4:
            export(model, x, found.file(number, "int8"), keras, int8=True)
    for name, mask in (("members", trained[0]), ("nonmembers", ~trained[0])):
        chosen = np.flatnonzero(mask)
        found.save(name, x=x[chosen], y=y[chosen], ids=found.ids(chosen))
    found.save("trained", **found.membership())
    return found


def lira_offline(lab: Lab, rows: np.ndarray) -> list[float]:
    """z-values in plain loops."""
    p = np.clip(lab.p_y, 1e-30, 1 - 1e-16)
    phi = np.log(p) - np.log1p(-p)
    scores = []
    for row in rows:
        out = [phi[s, row] for s in range(1, 1 + SHADOWS) if not lab.trained[s, row]]
        scores.append((phi[0, row] - np.median(out)) / np.std(out) if len(out) > 1 else 0.0)
    return scores


def auc(audit: Any, name: str, artifact: int = 0) -> float:
    attack = audit.artifacts[artifact].attack(name)
    assert attack is not None and attack.auc is not None, attack
    return float(attack.auc.value)


def test_attacks_with_shadows_find_what_a_loop_finds(lab: Lab, tmp_path: Path) -> None:
    audit = edgeprivacy.audit(
        lab.file(0),
        *lab.sides,
        shadow_files=lab.shadows,
        shadow_membership=lab.folder / "trained.npz",
        out=tmp_path / "out",
        **QUICK,
    )
    assert audit.split["counts"]["population"] == RESERVED  # the rows that trained nothing, and no others
    scored = np.arange(POOL)
    expected = roc_auc_score(lab.trained[0, :POOL], lira_offline(lab, scored))
    assert auc(audit, "lira.offline") == pytest.approx(expected, abs=0.02)
    assert auc(audit, "lira.offline") > auc(audit, "loss") + 0.03
    assert auc(audit, "loss") == pytest.approx(
        roc_auc_score(lab.trained[0, :POOL], lab.p_y[0, :POOL]), abs=1e-3
    )
    assert auc(audit, "rmia.offline") > 0.6
    attack = audit.artifacts[0].attack("loss")
    assert attack and attack.balanced_accuracy and attack.balanced_accuracy.threshold == "shadow"
    told = audit.split["shadows"]
    assert told["number"] == SHADOWS and told["membership"]["file"] == "trained.npz"
    assert [entry["file"] for entry in told["files"]] == [path.name for path in lab.shadows]
    assert all(entry["member_accuracy"] > entry["nonmember_accuracy"] for entry in told["files"])
    assert any("9 shadows were given as files" in note and told["files"][0]["sha256"][:12] in note
               for note in audit.notes)  # fmt: skip
    (test,) = [test for test in audit.null_tests if test.name == "shadow-membership"]
    assert test.passed is True
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["split"]["shadows"] == told


def test_saved_outputs_are_attacked_alike_and_order_is_by_rows_without_ids(
    lab: Lab, in_process: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    by_order = edgeprivacy.audit(
        lab.file(0),
        *lab.sides,
        shadow_files=[lab.folder / "shadow-float32"],
        shadow_membership={"members": lab.trained[1:, lab.order]},
        out=out,
        **QUICK,
    )
    side = {name: out / "confidences" / f"00.{name}.npz" for name in
            ("members", "nonmembers", "population", "shadows")}  # fmt: skip
    given = [part for name, path in side.items() for part in (f"--{name}", path)]
    done = in_process(
        "attack", *given, "--attacks", "lira.offline,rmia.offline", "--json", "-q", cwd=tmp_path
    )
    (artifact,) = json.loads(done.stdout)["artifacts"]
    for attack in artifact["attacks"]:
        assert attack["metrics"]["auc"]["value"] == auc(by_order, attack["name"])


def test_the_command_takes_files_and_folders(
    lab: Lab, in_process: Callable[..., Any], tmp_path: Path
) -> None:
    members, nonmembers = lab.sides
    base = ("audit", lab.file(0), "--members", members, "--nonmembers", nonmembers, "--json", "-q")
    base = (*base, "--attacks", "lira.offline", "--shadow-membership", lab.folder / "trained.npz")
    folder = in_process(*base, "--shadow-files", lab.folder / "shadow-float32", cwd=tmp_path)
    each = [part for path in lab.shadows for part in ("--shadow-files", path)]
    files = in_process(*base, *each, cwd=tmp_path)
    assert folder.returncode == 0, folder.stderr
    first, second = (json.loads(done.stdout)["artifacts"] for done in (folder, files))
    assert first == second and first[0]["attacks"][0]["metrics"]["auc"]["value"] > 0.6


def test_shadows_of_the_same_format_are_taken(lab: Lab, tmp_path: Path) -> None:
    every = [*lab.shadows, *(lab.file(model, "int8") for model in (1, 2, 3))]
    names = [f"{path.parent.name}-{path.name}" for path in every]
    (tmp_path / "all").mkdir()
    for path, name in zip(every, names, strict=True):
        shutil.copy(path, tmp_path / "all" / name)
    order = np.random.default_rng(0).permutation(len(every))
    trained = np.concatenate([lab.trained[1:], lab.trained[1:4]])
    audit = edgeprivacy.audit(
        [lab.file(0, "int8"), lab.file(0)],
        *lab.sides,
        shadow_files=[tmp_path / "all"],
        shadow_membership=lab.membership(members=trained[order], files=np.array(names)[order]),
        out=tmp_path / "out",
        attacks=("lira.offline", "lira.online"),
        resamples=100,
    )
    skipped = audit.artifacts[0].attack("lira.online")
    assert skipped and skipped.skipped == "needs 4 or more shadows, there are 3"
    assert auc(audit, "lira.offline", 0) > 0.55
    expected = roc_auc_score(lab.trained[0, :POOL], lira_offline(lab, np.arange(POOL)))
    assert auc(audit, "lira.offline", 1) == pytest.approx(expected, abs=0.02)
    assert "Files of format int8 were attacked with the 3 shadows of that format." in audit.notes


def test_membership_in_the_wrong_order_is_noticed(lab: Lab, tmp_path: Path) -> None:
    audit = edgeprivacy.audit(
        lab.file(0),
        *lab.sides,
        shadow_files=lab.shadows[:2],
        shadow_membership=lab.membership(members=~lab.trained[1:3] & (np.arange(len(lab.y)) < POOL)),
        out=tmp_path / "out",
        **QUICK,
    )
    assert any("in another order than their files" in note for note in audit.notes)


def test_no_population_where_shadows_trained_on_all_rows(lab: Lab, tmp_path: Path) -> None:
    everywhere = lab.trained[1:].copy()
    everywhere[:, POOL:] = np.random.default_rng(2).random((SHADOWS, RESERVED)) < 0.5
    audit = edgeprivacy.audit(
        lab.file(0),
        *lab.sides,
        shadow_files=lab.shadows,
        shadow_membership=lab.membership(members=everywhere),
        out=tmp_path / "out",
        **QUICK,
    )
    skipped = audit.artifacts[0].attack("rmia.offline")
    assert skipped and skipped.skipped == "needs population rows, there are none"
    assert "there is no population" in audit.split["text"] and "population" not in audit.split["counts"]


def test_what_does_not_fit_is_refused(lab: Lab, in_process: Callable[..., Any], tmp_path: Path) -> None:
    rows = len(lab.y)
    marked = np.zeros(rows, dtype=bool)
    marked[np.flatnonzero(lab.trained[1] & ~lab.trained[0])[0]] = True
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, path in enumerate(lab.shadows[:3]):
        shutil.copy(path, loose / f"s{(2, 10, 1)[number]}.tflite")
    three = lab.membership(members=lab.trained[1:4])
    cases: list[tuple[Any, Any, str]] = [
        (lab.shadows, None, "needs --shadow-membership"),
        ((), lab.membership(), "needs --shadow-files"),
        (lab.shadows[:3], lab.membership(), "do not fit the shadows' files"),
        ([lab.file(0), *lab.shadows[1:3]], three, "an audited file"),
        ([lab.file(1)] * 3, three, "are the same file"),
        (lab.shadows, lab.membership(ids=lab.ids(np.arange(rows) + 5)), "lacks 5 of the 380"),
        (lab.shadows, {"members": lab.trained[1:, :-1]}, "does not say what trained"),
        (lab.shadows, lab.membership(members=lab.trained[1:].astype(float) / 2), "true or false"),
        (lab.shadows, lab.membership(population=marked), "marks as population"),
        (lab.shadows, lab.membership(members=np.repeat(lab.trained[:1], SHADOWS, 0)), "exactly the target's"),
        ([loose], three, "is not clear"),
        ([loose], {**three, "files": np.array(["s1.tflite", "s2.tflite", "s3.tflite"])}, "s10.tflite, s3"),
        ([tmp_path], three, "holds no model files"),
    ]
    for files, membership, words in cases:
        with pytest.raises((DataError, UsageError), match=words):
            edgeprivacy.audit(
                lab.file(0), *lab.sides, shadow_files=files, shadow_membership=membership,
                out=tmp_path / "out", **QUICK,
            )  # fmt: skip
    members, nonmembers = lab.sides
    line = ("audit", lab.file(0), "--members", members, "--nonmembers", nonmembers, "--shadow-files")
    done = in_process(*line, loose, cwd=tmp_path)
    assert done.returncode == 2 and "--shadow-membership" in done.stderr and done.stderr.count("\n") == 1
