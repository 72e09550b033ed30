"""A real model of several labels a row: trained by another library, exported, audited as the file it is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

POOL, SHADOWS = 500, 5
LABELS = np.array([[d % 2 == 0, d > 4, d in (0, 6, 8, 9), d in (2, 3, 5, 7)] for d in range(10)], dtype=int)


@pytest.fixture(scope="module")
def lab(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Digits, each even or not, large or not, with a loop or not, prime or not; noisy halves by heart."""
    import tensorflow as tf

    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(4)
    x, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(x))[:POOL]
    x = (x[order] / 16).astype(np.float32)
    y = LABELS[digits[order]] ^ (rng.random((len(x), 4)) < 0.15)
    trained = np.zeros((1 + SHADOWS, len(x)), dtype=bool)
    trained[:, :POOL] = rng.random((1 + SHADOWS, POOL)) < 0.5
    files, answers = [], []
    for model, inside in enumerate(trained):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            net = MLPClassifier((48,), max_iter=300, random_state=model).fit(x[inside], y[inside])
        answers.append(net.predict_proba(x))
        dense = [keras.layers.Dense(48, activation="relu"), keras.layers.Dense(4, activation="sigmoid")]
        copy = keras.Sequential([keras.layers.Input((64,)), *dense])
        copy.set_weights([part for pair in zip(net.coefs_, net.intercepts_, strict=True) for part in pair])
        converter = tf.lite.TFLiteConverter.from_keras_model(copy)
        files.append(folder / ("target" if model == 0 else "shadows") / f"{model}.tflite")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_bytes(converter.convert())
        if model == 0:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row[None]] for row in x[:100])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
            (folder / "int8.tflite").write_bytes(converter.convert())
    ids = np.array([f"row-{row}" for row in range(len(x))])
    for name, rows in (("members", trained[0]), ("nonmembers", ~trained[0])):
        np.savez(folder / f"{name}.npz", x=x[rows], y=y[rows], ids=ids[rows])
    np.savez(folder / "trained.npz", members=trained[1:], ids=ids)
    np.savez(
        folder / "outputs.npz",
        probabilities=np.stack(answers)[:, :POOL],
        labels=y[:POOL],
        members=trained[:, :POOL],
    )
    own = np.where(y == 1, answers[0], 1 - answers[0])
    own = np.clip(own, 1e-30, 1 - np.finfo(float).eps)
    score = np.log(own / (1 - own)).mean(axis=1)
    return {
        "folder": folder, "files": files, "score": score, "trained": trained, "ids": ids.tolist(),
        "exact": ((answers[0] > 0.5) == y).all(axis=1), "labels_right": (answers[0] > 0.5) == y,
    }  # fmt: skip


def attacked(done: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    return artifact, {attack["name"]: attack for attack in artifact["attacks"]}


@pytest.mark.parametrize("format", ["float32", "int8"])
def test_the_file_is_audited_with_shadows(
    lab: dict[str, Any], edgeprivacy: Callable[..., Any], tmp_path: Path, format: str
) -> None:
    folder = lab["folder"]
    file = lab["files"][0] if format == "float32" else folder / "int8.tflite"
    sides = ("--members", folder / "members.npz", "--nonmembers", folder / "nonmembers.npz")
    shadows = ("--shadow-files", folder / "shadows") if format == "float32" else ()
    known = ("--shadow-membership", folder / "trained.npz") if format == "float32" else ()
    names = "loss,confidence,entropy,nn,lira.offline"
    done = edgeprivacy(
        "audit", file, *shadows, *known, *sides, "--attacks", names, "--json", "-q", "--seed", 1,
        "--out", tmp_path / "out", cwd=tmp_path,
    )  # fmt: skip
    artifact, attacks = attacked(done)
    assert "independent" in attacks["entropy"]["skipped"] and "independent" in attacks["nn"]["skipped"]
    assert attacks["loss"]["metrics"]["auc"]["value"] > 0.58
    kept = np.load(next((tmp_path / "out" / "confidences").glob("*nonmembers*.npz")))
    assert kept["label_answers"].shape[1] == 4 and kept["probabilities"].shape[1] == 2
    rows = np.array([lab["ids"].index(row) for row in kept["row_ids"].tolist()])
    where = np.concatenate([np.flatnonzero(lab["trained"][0]), rows])
    expected = roc_auc_score(lab["trained"][0][where], lab["score"][where])
    assert attacks["loss"]["metrics"]["auc"]["value"] == pytest.approx(
        expected, abs=1e-4 if format == "float32" else 0.03
    )
    if format == "float32":
        assert attacks["lira.offline"]["metrics"]["auc"]["value"] > 0.58
        assert artifact["utility"]["train_accuracy"]["value"] == pytest.approx(
            lab["exact"][lab["trained"][0]].mean(), abs=1e-6
        )
        told = artifact["utility"]["label_accuracy"]
        outside = ~lab["trained"][0]  # no population: shadows trained on all of them
        assert told["value"] == pytest.approx(lab["labels_right"][outside].mean(), abs=1e-6)
        assert told["ci"][0] < told["value"] < told["ci"][1]
        assert "independent labels" in " ".join(json.loads(done.stdout)["notes"])
        groups = {row["group"] for row in artifact["bounds"]["slices"]["rows"]}
        assert groups == {"confidence"}
        again = []
        for side in ("members", "nonmembers", "population"):
            for path in (tmp_path / "out" / "confidences").glob(f"*.{side}.npz"):
                again += [f"--{side}", path]
        repeated, same = attacked(
            edgeprivacy("attack", *again, "--attacks", "loss", "--json", "-q", "--seed", 1, cwd=tmp_path)
        )
        for key in ("value", "ci"):  # without shadows there is no spread over targets
            assert same["loss"]["metrics"]["auc"][key] == attacks["loss"]["metrics"]["auc"][key]
        assert repeated["utility"] == artifact["utility"]


def test_outputs_of_many_models_are_attacked(
    lab: dict[str, Any], in_process: Callable[..., Any], tmp_path: Path
) -> None:
    done = in_process(
        "attack", "--table", lab["folder"] / "outputs.npz", "--attacks", "lira.online,loss,salem1",
        "--json", "-q", cwd=tmp_path,
    )  # fmt: skip
    artifact, attacks = attacked(done)
    assert attacks["lira.online"]["metrics"]["auc"]["value"] > 0.58
    assert "independent" in attacks["salem1"]["skipped"]
    assert artifact["utility"]["train_accuracy"]["value"] == pytest.approx(
        lab["exact"][:POOL][lab["trained"][0, :POOL]].mean(), abs=1e-6
    )


def test_mistakes_end_in_one_line(
    lab: dict[str, Any], in_process: Callable[..., Any], tmp_path: Path
) -> None:
    folder = lab["folder"]
    data = np.load(folder / "members.npz")
    np.savez(tmp_path / "three.npz", x=data["x"], y=data["y"][:, :3])
    np.savez(tmp_path / "one.npz", x=data["x"], y=data["y"][:, 0])
    for members, words in (
        ("three.npz", "have different numbers of labels"),
        ("one.npz", "have different numbers of labels"),
    ):
        sides = ("--members", tmp_path / members, "--nonmembers", folder / "nonmembers.npz")
        done = in_process("audit", lab["files"][0], *sides, "-q", cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and words in done.stderr, (
            done.stderr
        )
    np.savez(tmp_path / "classes.npz", x=data["x"], y=np.arange(len(data["x"])) % 4)
    np.savez(tmp_path / "others.npz", x=data["x"] + 1, y=np.arange(len(data["x"])) % 4)
    sides = ("--members", tmp_path / "classes.npz", "--nonmembers", tmp_path / "others.npz")
    done = in_process("audit", lab["files"][0], *sides, "-q", cwd=tmp_path)
    assert done.returncode == 2 and "[rows, labels]" in done.stderr, done.stderr
    for asked, words in (
        (("--defense", "relaxloss"), "is about one true class among several"),
        (("--canaries", "20"), "there are no canaries of rows with several labels"),
    ):
        done = in_process("compress", "--data", folder / "members.npz", *asked, "-q", cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and words in done.stderr, (
            done.stderr
        )


def test_tables_name_their_label_columns(
    lab: dict[str, Any], in_process: Callable[..., Any], tmp_path: Path
) -> None:
    saved = np.load(lab["folder"] / "outputs.npz")
    p, y, inside = saved["probabilities"][0], saved["labels"], saved["members"][0]
    names = ("even", "large", "loop", "prime")
    for side, rows in (("members", inside), ("nonmembers", ~inside)):
        lines = [",".join([f"p{k}" for k in range(4)] + list(names))]
        for a, b in zip(p[rows], y[rows], strict=True):
            lines.append(",".join([f"{value:.9g}" for value in a] + [str(value) for value in b]))
        (tmp_path / f"{side}.csv").write_text("\n".join(lines) + "\n")
        np.savez(tmp_path / f"{side}.npz", probabilities=p[rows], labels=y[rows])
    found = []
    for ending in ("csv", "npz"):
        sides = [part for side in ("members", "nonmembers") for part in (f"--{side}", f"{side}.{ending}")]
        wanted = ("--attacks", "loss,confidence", "--json", "-q", "--label", ",".join(names))
        artifact, attacks = attacked(in_process("attack", *sides, *wanted, cwd=tmp_path))
        found.append((artifact["utility"], attacks["loss"]["metrics"]["auc"]["value"]))
    assert found[0][0] == found[1][0] and found[0][1] == pytest.approx(found[1][1], abs=1e-4)
    sides = ("--members", "members.csv", "--nonmembers", "nonmembers.csv", "--label", "even,large")
    done = in_process("attack", *sides, "-q", cwd=tmp_path)
    assert done.returncode == 2 and "do not fit the answers" in done.stderr
    np.savez(tmp_path / "three.npz", probabilities=p[inside][:, :3], labels=y[inside][:, :3])
    done = in_process("attack", "--members", "three.npz", "--nonmembers", "nonmembers.npz", cwd=tmp_path)
    assert done.returncode == 2 and "different numbers of labels" in done.stderr
