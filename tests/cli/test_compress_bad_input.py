"""What `edgeprivacy compress` says to a mistake: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

Done = subprocess.CompletedProcess[str]

FACTORIES = """
import sys

def raises(keras):
    print("a word of the user's own")
    raise ValueError("the layer is too wide")

def leaves(keras):
    sys.exit("enough")

def nonsense(keras):
    return "a model, honestly"

def narrow(keras):
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, activation="softmax")])

def data_raises():
    raise KeyError("no such table")

def data_nonsense():
    return 42

def data_shapes():
    return [[1.0, 2.0], [3.0]], [0, 1]
"""


def _rows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    y = rng.permutation(np.arange(count) % 4)
    x = rng.normal(size=(count, 6)) + 2 * y[:, None] * np.arange(6)[None] / 6
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with one fault each, beside `good.npz`, `t.npz` and `h.npz`."""
    home = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(5)
    x, y = _rows(rng, 400)
    np.savez(home / "good.npz", x=x, y=y)
    np.savez(home / "t.npz", x=x[:150], y=y[:150])
    np.savez(home / "h.npz", x=x[150:], y=y[150:])
    np.savez(home / "twice.npz", x=np.concatenate([x[150:], x[:7]]), y=np.concatenate([y[150:], y[:7]]))
    bad = x.copy()
    bad[17, 3] = np.nan
    np.savez(home / "nan.npz", x=bad, y=y)
    np.savez(home / "wide.npz", x=np.hstack([x, x]), y=y)
    np.savez(home / "short.npz", x=x, y=y[:-1])
    np.savez(home / "flat.npz", x=x[:, 0], y=y)
    np.savez(home / "negative.npz", x=x, y=np.where(np.arange(400) == 41, -1, y))
    np.savez(home / "absent.npz", x=x, y=np.where(y == 3, 4, y))
    few = np.where(np.arange(400) < 399, y % 3, 3)
    np.savez(home / "rare.npz", x=x, y=few)
    (home / "cut.npz").write_bytes((home / "good.npz").read_bytes()[:900])
    (home / "text.csv").write_text("a,b,label\n1,2,0\n1,two,1\n")
    (home / "f.py").write_text(FACTORIES)
    (home / "broken.py").write_text("def load(:\n")
    (home / "no.toml").write_text("formats = [\n")
    (home / "flat.toml").write_text("prune = 0.6\n")
    (home / "text.toml").write_text('data = "good.npz"\n')
    (home / "run.toml").write_text("run = 3\n")
    (home / "wide.toml").write_text('[data]\nsource = "good.npz"\n[defense]\nname = "wemem"\nwindow = 500\n')
    (home / "trainer.toml").write_text("[training]\nfunction = 'nope.py:train'\n")
    (home / "w.h5").write_bytes(b"weights")
    (home / "own.py").write_text("def train(model):\n    return model\n")
    (home / "own.toml").write_text("[training]\nfunction = 'own.py:train'\n")
    (home / "foreign").mkdir()
    (home / "foreign" / "thesis.txt").write_text("years of work")
    return home


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "missing file": (("--data", "god.npz"), "god.npz does not exist"),
    "close name": (("--data", "god.npz"), "did you mean 'good.npz'?"),
    "truncated file": (("--data", "cut.npz"), "not a readable .npz"),
    "text in numbers": (("--data", "text.csv", "--label", "label"), "text.csv"),
    "nan": (("--data", "nan.npz"), "nan in row 17, column 3"),
    "one dimension": (("--data", "flat.npz"), "wrong shape"),
    "lengths": (("--data", "short.npz"), "differ in length"),
    "sides differ": (("--train", "t.npz", "--holdout", "wide.npz"), "differ in shape"),
    "same rows": (("--train", "t.npz", "--holdout", "twice.npz"), "7 of 257 rows stand among both"),
    "train alone": (("--train", "t.npz"), "--train is given without --holdout"),
    "holdout alone": (("--holdout", "h.npz"), "--holdout is given without --train"),
    "label": (("--data", "negative.npz"), "out of range"),
    "absent class": (("--data", "absent.npz"), "class '3' is absent from the data"),
    "rare class": (("--data", "rare.npz"), "class '3' is absent from"),
    "factory file": (("--data", "nope.py:load"), "nope.py does not exist"),
    "factory name": (("--data", "f.py:data_raise"), "did you mean 'data_raises'?"),
    "factory raises": (("--data", "f.py:data_raises"), "no such table"),
    "factory nonsense": (("--data", "f.py:data_nonsense"), "returned something else than data"),
    "factory shapes": (("--data", "f.py:data_shapes"), "differ in shape"),
    "factory syntax": (("--data", "broken.py:load"), "SyntaxError"),
    "recipe missing": (("nope.toml",), "recipe nope.toml does not exist"),
    "recipe no toml": (("no.toml",), "recipe no.toml is not TOML"),
    "section as value": (("flat.toml", "--prune-iterations", "3"), "'prune'"),
    "section as text": (("text.toml", "--label", "y"), "'data'"),
    "run as value": (("run.toml",), "must be a table"),
    "option": (("--shadow", "3"), "--shadows"),
    "backend": (("--backend", "tflit"), "did you mean 'tflite'?"),
    "format": (("--formats", "int9"), "did you mean 'int8'?"),
    "defense": (("--defense", "wemen"), "did you mean 'wemem'?"),
    "compare": (("--compare", "les-data"), "did you mean 'less-data'?"),
    "attack": (("--attacks", "confidense"), "did you mean 'confidence'?"),
    "metric": (("--fail-if", "acuracy<0.5"), "did you mean 'accuracy'?"),
    "idle gate": (("--fail-if", "auc>1"), "can never fail"),
    "bound of a given split": (
        ("--train", "t.npz", "--holdout", "h.npz", "--fail-if", "one_run_epsilon>0.5"),
        "the split came with the data",
    ),
    "bound without an attack for it": (
        ("--attacks", "compleak.nr", "--fail-if", "one_run_epsilon>0.5"),
        "no attack that a bound can rest on",
    ),
    "bound of an attack": (
        ("--fail-if", "one_run_epsilon>0.5 for attack=loss"),
        "belongs to an artifact, not to an attack",
    ),
    "split": (("--split", "halve"), "did you mean 'half'?"),
    "split unknown": (("--split", "given"), "needs to know the train rows"),
    "device": (("--device", "adbb"), "unknown device 'adbb'"),
    "sparsity": (("--prune", "1.5"), "prune.sparsity"),
    "jobs": (("--jobs", "0"), "jobs"),
    "seed": (("--seed", "-1"), "seed"),
    "shadows": (("--shadows", "-1"), "audit.shadows"),
    "schedule": (("--prune-schedule", "iterativ"), "did you mean 'iterative'?"),
    "window": (("wide.toml",), "wider than every class"),
    "weights missing": (
        ("--train", "t.npz", "--holdout", "h.npz", "--weights", "nope.h5"),
        "weights nope.h5 are no file",
    ),
    "weights of unknown rows": (("--data", "good.npz", "--weights", "good.npz"), "which rows"),
    "model missing": (("--data", "good.npz", "--model", "nope.keras"), "nope.keras does not exist"),
    "model no name": (("--data", "good.npz", "--model", "resnett"), "did you mean 'resnet'?"),
    "model file": (("--data", "good.npz", "--model", "nope.py:build"), "nope.py does not exist"),
    "model of another backend": (("--model", "resnet18"), "resnet18 is a model of executorch alone"),
    "model file of another backend": (
        ("--backend", "executorch", "--model", "good.npz"),
        "executorch does not take a model from a file",
    ),
    "weights for two backends": (
        (*("--backend", "tflite,executorch", "--train", "t.npz"), "--holdout", "h.npz", "--weights", "w.pt"),
        "trained weights are of one backend",
    ),
    "format of another backend": (("--formats", "ptl-int8"), "no format of tflite"),
    "schedule of another backend": (("--prune-schedule", "structured"), "no pruning schedule of tflite"),
    "training function": (("trainer.toml",), "the training function's file nope.py does not exist"),
    "training function and a defense that trains": (
        ("own.toml", "--defense", "hamp"),
        "defense 'hamp' trains the original too, and training.function says where it comes from",
    ),
    "weights and a defense that trains": (
        ("--train", "t.npz", "--holdout", "h.npz", "--weights", "w.h5", "--compare", "wemem+relaxloss"),
        "set original = false",
    ),
    "parts of a defense": (("--defense", "relaxloss+hamp"), "both govern the loss of a batch"),
    "part of a defense": (("--defense", "wemem+relaxlos"), "did you mean 'relaxloss'?"),
    "foreign folder": (("--data", "good.npz", "--out", "foreign"), "holds other files"),
    "out is a file": (("--data", "good.npz", "--out", "good.npz"), "is no folder"),
}
KEYS = {
    "data.sorce = 'x'": "did you mean 'source'?",
    "sead = 3": "did you mean 'seed'?",
    "[audit]\nshadow = 3": "did you mean 'shadows'?",
    "[run]\njob = 3": "did you mean 'jobs'?",
    "[defense]\nname = 'wemem'\nwindov = 3": "did you mean 'window'?",
    "[data]\nclases = 3": "unknown recipe key 'data.clases'",
}


# Should a mistake slip through, little is made of it.
BRIEF = ("--epochs", "1", "--finetune-epochs", "1", "--shadows", "0", "--attacks", "loss")


def _one_line(done: Done, words: str, code: int = 2) -> None:
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert words in lines[0]


def _left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_made(
    case: str,
    folder: Path,
    in_process: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments, words = MISTAKES[case]
    before = _left(folder)
    _one_line(in_process("compress", *BRIEF, *arguments, cwd=folder), words)
    assert _left(folder) == before and not _left(tmp_path)


@pytest.mark.parametrize("text", KEYS)
def test_an_unknown_key_names_the_closest_one(
    text: str, in_process: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    _one_line(in_process("compress", "recipe.toml", cwd=tmp_path), KEYS[text])
    assert _left(tmp_path) == {"recipe.toml"}


def test_an_unreadable_file(program: str, folder: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.npz"
    locked.write_bytes((folder / "good.npz").read_bytes())
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        # A superuser reads every file, but not this one: its first pages are not mapped.
        locked = Path("/proc/self/mem")
        if not locked.exists():
            pytest.skip("every file is readable here")
    for arguments in (("--data", locked), (locked,), ("--data", f"{locked}.py:load")):
        done = subprocess.run(
            [program, "compress", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        _one_line(done, locked.stem)
    assert _left(tmp_path) <= {"locked.npz"}


# With more releases than workers: those that wait must not keep the program from ending.
SMALL = ("--epochs", "1", "--shadows", "9", "--attacks", "loss", "--data", "good.npz", "--jobs", "1")
MODELS = {
    "raises": "the layer is too wide",
    "leaves": "enough",
    "nonsense": "is no Keras model",
    "narrow": "takes rows of another shape",
}


@pytest.fixture(scope="module")
def models(
    folder: Path, edgeprivacy: Callable[..., Done], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    """What the command says to each model; these mistakes show only once the framework is loaded."""
    pytest.importorskip("tf_keras", reason="needs the extra tflite")
    cache = tmp_path_factory.mktemp("cache")

    def call(name: str) -> Done:
        model = ("--model", f"f.py:{name}", "--json", "--quiet", "--out", f"out-{name}")
        return edgeprivacy("compress", *SMALL, *model, cwd=folder, XDG_CACHE_HOME=str(cache))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MODELS, pool.map(call, MODELS), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_used_ends_in_one_line(
    name: str, models: dict[str, Done], folder: Path
) -> None:
    _one_line(models[name], MODELS[name])
    assert not (folder / f"out-{name}").exists()


def test_hold_out_rows_that_are_train_rows_can_be_dropped(
    folder: Path, in_process: Callable[..., Done], tmp_path: Path
) -> None:
    paths = ("--train", folder / "t.npz", "--holdout", folder / "twice.npz")
    done = in_process("compress", *paths, "--drop-overlap", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "400 rows" in done.stdout and "150 train rows" in done.stdout
    assert not _left(tmp_path)


def test_a_dry_run_answers_json(in_process: Callable[..., Done], tmp_path: Path) -> None:
    others = ("--compare", "wemem+hamp, less-data", "--compare", "selena")
    done = in_process("compress", "--formats", "int8", *others, "--dry-run", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert (plan["rows"], plan["recipe"]["formats"]) == (1797, ["int8"]) and plan["split"]["text"]
    assert [arm["name"] for arm in plan["recipe"]["compare"]] == ["wemem+hamp", "less-data", "selena"]
    assert not _left(tmp_path)
