"""`edgeprivacy attack` with shadows that somebody else trained, as a process and in the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

ROWS, CLASSES, SHADOWS, POPULATION = 300, 4, 8, 60


class Lab:
    """A target and shadows that are surer of the rows that trained them; rows differ in difficulty."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(12)
        self.folder = folder
        self.labels = rng.integers(0, CLASSES, ROWS)
        self.members = rng.random((1 + SHADOWS, ROWS)) < 0.5
        logits = rng.normal(size=(1 + SHADOWS, ROWS, CLASSES)) / 2
        easy = 2 * rng.normal(size=ROWS)
        logits[:, np.arange(ROWS), self.labels] += easy + 1.2 * self.members
        self.p = softmax(logits, axis=2)
        self.population = softmax(rng.normal(size=(1 + SHADOWS, POPULATION, CLASSES)), axis=2)
        self.population_labels = rng.integers(0, CLASSES, POPULATION)
        self.save("table", probabilities=self.p[0], labels=self.labels, member=self.members[0])
        self.save("p", probabilities=self.population[0], labels=self.population_labels)
        self.save("shadows", **self.shadows())
        self.save("shadows-p", **self.shadows(), population=self.population[1:])
        for name, inside in (("m", self.members[0]), ("n", ~self.members[0])):
            self.save(name, probabilities=self.p[0, inside], labels=self.labels[inside])

    def shadows(self, **changed: Any) -> dict[str, Any]:
        return {"probabilities": self.p[1:], "members": self.members[1:], **changed}

    def save(self, name: str, **arrays: Any) -> Path:
        np.savez(self.path(name), **arrays)
        return self.path(name)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def offline_auc(self) -> float:
        """LiRA's offline z-value a row, in plain loops."""
        p = self.p.astype(np.float32).astype(np.float64)
        p_y = np.stack([model[np.arange(ROWS), self.labels] for model in p])
        phi = np.log(p_y) - np.log(1 - p_y)
        everywhere = phi[1:][~self.members[1:]]
        scores = []
        for row in range(ROWS):
            out = [phi[1 + s, row] for s in range(SHADOWS) if not self.members[1 + s, row]]
            known = out if len(out) > 1 else everywhere
            centre = np.median(out) if len(out) > 1 else np.mean(everywhere)
            scores.append((phi[0, row] - centre) / np.std(known))
        return float(roc_auc_score(self.members[0], scores))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def found(done: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    assert done.returncode in (0, 3), done.stderr
    content = json.loads(done.stdout)
    (artifact,) = content["artifacts"]
    return content, {attack["name"]: attack for attack in artifact["attacks"]}


def auc(attack: dict[str, Any]) -> float:
    return float(attack["metrics"]["auc"]["value"])


def test_every_way_to_give_shadows_finds_what_a_loop_finds(
    edgeprivacy: Callable[..., Any], in_process: Callable[..., Any], lab: Lab, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(ROWS)
    by_id = {"probabilities": lab.p[1:, order], "members": lab.members[1:, order], "row_ids": order}
    lab.save("by-id", **by_id)
    lab.save(
        "table-ids", probabilities=lab.p[0], labels=lab.labels, member=lab.members[0], ids=np.arange(ROWS)
    )
    first = np.concatenate([np.flatnonzero(lab.members[0]), np.flatnonzero(~lab.members[0])])
    lab.save("sides", probabilities=lab.p[1:, first], members=lab.members[1:, first])
    lab.save("all", probabilities=lab.p, labels=lab.labels, members=lab.members)
    ways = [
        (edgeprivacy, "--table", lab.path("table"), "--shadows", lab.path("shadows")),
        (in_process, "--table", lab.path("table-ids"), "--shadows", lab.path("by-id")),
        (in_process, "--members", lab.path("m"), "--nonmembers", lab.path("n"), "--shadows",
         lab.path("sides")),
        (in_process, "--table", lab.path("all")),
    ]  # fmt: skip
    for call, *arguments in ways:
        done = call("attack", *arguments, "--attacks", "lira.offline,loss", "--json", "-q", cwd=tmp_path)
        content, attacks = found(done)
        assert auc(attacks["lira.offline"]) == pytest.approx(lab.offline_auc(), abs=1e-3), arguments
        assert auc(attacks["lira.offline"]) > auc(attacks["loss"]) + 0.05
        assert content["split"]["shadows"]["number"] == SHADOWS
        assert len(content["split"]["shadows"]["sha256"]) == 64
        (test,) = [test for test in content["null_tests"] if test["name"] == "shadow-membership"]
        assert test["passed"] is True
        assert any("8 shadows were given" in note for note in content["notes"])


def test_a_population_must_be_answered_by_all_models(
    in_process: Callable[..., Any], lab: Lab, tmp_path: Path
) -> None:
    line = ("attack", "--table", lab.path("table"), "--attacks", "rmia.offline,attack-p", "--json", "-q")
    with_p = (*line, "--population", lab.path("p"), "--shadows")
    _, attacks = found(in_process(*with_p, lab.path("shadows-p"), cwd=tmp_path))
    assert auc(attacks["rmia.offline"]) > 0.6 and "metrics" in attacks["attack-p"]
    lab.save(
        "all-p",
        probabilities=lab.p,
        labels=lab.labels,
        members=lab.members,
        population=lab.population,
        population_labels=lab.population_labels,
    )
    same = found(in_process("attack", "--table", lab.path("all-p"), *line[3:], cwd=tmp_path))[1]
    assert auc(same["rmia.offline"]) == auc(attacks["rmia.offline"])
    _, attacks = found(in_process(*line, "--shadows", lab.path("shadows"), cwd=tmp_path))
    assert "population" in attacks["rmia.offline"]["skipped"]
    trained = np.zeros((SHADOWS, POPULATION), dtype=bool)
    trained[3, 7] = True
    bad = lab.save("in", **lab.shadows(population=lab.population[1:], population_members=trained))
    for arguments, words in (
        ((*with_p, lab.path("shadows")), "did not answer the target's population"),
        ((*line, "--shadows", lab.path("shadows-p")), "give them with --population"),
        ((*with_p, bad), "trained on rows of the population"),
    ):
        done = in_process(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr, done.stderr


def test_membership_that_gives_the_targets_away_is_no_pass(
    in_process: Callable[..., Any], lab: Lab, tmp_path: Path
) -> None:
    outside_only = lab.members[1:] & ~lab.members[0]  # shadows drawn from the non-members alone
    path = lab.save("outside", **lab.shadows(members=outside_only))
    line = ("attack", "--table", lab.path("table"), "--attacks", "lira.online", "--json", "-q")
    done = in_process(*line, "--shadows", path, "--fail-if", "auc>0.999", cwd=tmp_path)
    content, _ = found(done)
    assert (done.returncode, content["verdict"]) == (3, "inconclusive")
    assert content["null_tests"][0]["name"] == "shadow-membership"
    assert content["null_tests"][0]["passed"] is False
    opposite = lab.members[1:].copy()
    opposite[2] = ~lab.members[0]
    path = lab.save("opposite", **lab.shadows(members=opposite))
    content, _ = found(in_process(*line, "--shadows", path, cwd=tmp_path))
    assert content["split"]["shadows"]["number"] == SHADOWS - 1
    assert any("put aside" in note for note in content["notes"])


def test_too_few_shadows_are_counted(in_process: Callable[..., Any], lab: Lab, tmp_path: Path) -> None:
    path = lab.save("two", probabilities=lab.p[1:3], members=lab.members[1:3])
    done = in_process("attack", "--table", lab.path("table"), "--shadows", path, "--json", "-q", cwd=tmp_path)
    _, attacks = found(done)
    assert attacks["lira.online"]["skipped"] == "needs 4 or more shadows, there are 2"
    assert attacks["lira.offline"].get("skipped") is None and attacks["nn"].get("skipped") is None


def mistakes(lab: Lab) -> list[tuple[str, tuple[object, ...], str]]:
    """Name, arguments with one mistake, words of the message."""
    p, members, labels = lab.p.copy(), lab.members, lab.labels
    nan, long = p[1:].copy(), p[1:].copy()
    nan[2, 5, 1] = np.nan
    long[0, 9] *= 1.1
    few = np.zeros_like(members[1:])
    few[:, :3] = True
    own = members[1:].copy()
    own[4] = members[0]
    twice = p[1:].copy()
    twice[1] = p[0]
    ids = np.arange(ROWS)
    lab.save("m-ids", probabilities=p[0, :150], labels=labels[:150], ids=ids[:150])
    lab.save("n-ids", probabilities=p[0, 140:290], labels=labels[140:290], ids=ids[140:290])
    lab.save("ten", probabilities=p[0, :10], labels=labels[:10], member=np.arange(10) < 5)
    lab.save("none", probabilities=p[0, :0], labels=labels[:0], member=members[0, :0])
    lab.save("nan-table", probabilities=nan[2], labels=labels, member=members[0])
    both = ("--members", lab.path("m-ids"), "--nonmembers", lab.path("n-ids"))

    def shadows(name: str, **changed: Any) -> tuple[object, ...]:
        path = lab.save(f"bad-{name}", **lab.shadows(**changed))
        return ("--table", lab.path("table"), "--shadows", path)

    return [
        ("rows", shadows("rows", probabilities=p[1:, :-1]), "allowed: [shadows, 300 rows, 4 classes]"),
        ("classes", shadows("classes", probabilities=p[1:, :, :3]), "do not fit the target's"),
        ("flat", shadows("flat", probabilities=p[1]), "do not fit the target's"),
        ("no shadow", shadows("empty", probabilities=p[:0], members=members[:0]), "do not fit"),
        ("members", shadows("members", members=members), "[shadows, rows] = (8, 300)"),
        ("values", shadows("values", members=members[1:] * 2), "must be true or false"),
        ("nan", shadows("nan", probabilities=nan), "shadow 2 answered NaN"),
        ("sums", shadows("sums", probabilities=long), "shadow 0 are no probability distributions"),
        ("few", shadows("few", members=few), "3 that trained it and 297 that did not"),
        ("target", shadows("target", probabilities=twice), "shadow 1 is the target itself"),
        ("own members", shadows("own", members=own), "exactly the target's members"),
        ("ids", shadows("ids", row_ids=ids), "lacks 300 of the 300 rows, by id"),
        ("overlap", both, "10 of 150 rows of the nonmembers stand among the members too"),
        ("ten", ("--table", lab.path("ten")), "too few rows to attack"),
        ("no rows", ("--table", lab.path("none")), "wrong shape"),
        ("nan table", ("--table", lab.path("nan-table")), "answered NaN"),
        ("missing", ("--table", lab.path("table"), "--shadows", lab.path("nope")), "does not exist"),
        ("foreign", ("--table", lab.path("table"), "--shadows", lab.path("m")), "has no array 'members'"),
    ]  # fmt: skip


AS_PROCESS = ("rows", "nan", "sums", "overlap", "ten", "no rows")
"""Made through the installed command; the others differ in their words only."""


def test_mistakes_end_in_one_line_and_exit_2(
    edgeprivacy: Callable[..., Any], in_process: Callable[..., Any], lab: Lab, tmp_path: Path
) -> None:
    cases = mistakes(lab)
    with ThreadPoolExecutor(2) as pool:
        outside = {
            name: pool.submit(edgeprivacy, "attack", *arguments, cwd=tmp_path)
            for name, arguments, _ in cases
            if name in AS_PROCESS
        }
    assert set(outside) == set(AS_PROCESS)
    for name, arguments, words in cases:
        done = outside[name].result() if name in outside else in_process("attack", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), (name, done.stderr)
        assert words in done.stderr and done.stderr.count("\n") == 1, (name, done.stderr)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "edgeprivacy-out").exists()


def test_outputs_that_say_nothing_are_attacked_all_the_same(
    edgeprivacy: Callable[..., Any], lab: Lab, tmp_path: Path
) -> None:
    flat = np.full_like(lab.p, 1 / CLASSES)
    tied = lab.save("tied", probabilities=flat, labels=lab.labels, members=lab.members)
    one = lab.save("one", probabilities=lab.p, labels=np.zeros(ROWS, dtype=int), members=lab.members)

    def run(path: Path) -> Any:
        return edgeprivacy("attack", "--table", path, "--json", "-q", cwd=tmp_path)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, [tied, one]))
    for name, done in zip(("tied", "one"), runs, strict=True):
        _, attacks = found(done)
        for attack in attacks.values():
            if attack.get("skipped"):
                assert "population" in attack["skipped"], (name, attack["skipped"])
            elif name == "tied":
                assert auc(attack) == pytest.approx(0.5, abs=0.1), attack["name"]
