"""What `compress` says before it trains, where a defense lacks what it needs or its settings do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.data.loading import DataSpec, load_source
from edgeprivacy.data.splits import Shares, make_split

SPLIT = "[split]\npool = 0.7599\nreference = 0.0001\n"
CASES = {
    "no reference rows": ("advreg", SPLIT, "none is left for the reference rows"),
    "clusters after a grid": (
        "defensive-quantization",
        "[cluster]\nclusters = 16\n",
        "given: cluster.clusters 16; allowed: no clusters",
    ),
    "trained on after a grid": (
        "wemem+defensive-quantization",
        'formats = ["int8", "qat-int8"]',
        "would move them off it; given: formats qat-int8",
    ),
    "two grids": (
        "defensive-quantization",
        "[quantize]\nweight_bits = 4\n",
        "a grid of its own, and the recipe on another; given: quantize.weight_bits 4",
    ),
    "clusters after the recipe's grid": (
        "none",
        "[quantize]\nouter_bits = 4\n[cluster]\nclusters = 16\n",
        "quantize.outer_bits puts weights on a grid, and what follows would move them off it",
    ),
    "a version whose clusters follow a grid": (
        "none",
        "[[versions]]\nquantize.weight_bits = 4\ncluster.clusters = 16\n",
        "quantize.weight_bits puts weights on a grid, and what follows would move them off it",
    ),
    "bits that no grid has": ("none", "[quantize]\nweight_bits = 1\n", "quantize.weight_bits"),
    "channels removed before a grid": (
        "defensive-quantization",
        'backend = "executorch"\n[prune]\nschedule = "structured"\n',
        "this schedule removes some",
    ),
    "an ablation that would train weights on a grid": (
        "none",
        '[quantize]\nweight_bits = 4\n[[versions]]\nprune.schedule = "untrained"\n',
        "quantize.weight_bits trains weights on a grid, and a version that is compressed untrained",
    ),
    "an ablation that would fine-tune": (
        "cwrf",
        '[prune]\nschedule = "untrained"\n',
        "'cwrf' fine-tunes what it rewinds, and a version that is compressed untrained trains nothing",
    ),
    "an ablation that would be pruned by ADMM": (
        "mia-pruning",
        '[[versions]]\nprune.schedule = "untrained"\n',
        "prunes weights by itself, one by one; given: prune.schedule untrained",
    ),
    "channels removed before Min-Max": (
        "mia-pruning:minmax",
        'backend = "executorch"\n[prune]\nschedule = "structured"\n',
        "prunes weights by itself, one by one",
    ),
    "an original from elsewhere": ("advreg", '[training]\nfunction = "f.py:f"\n', "trains the original too"),
    "an original without initial weights": (
        "cwrf",
        '[model]\nweights = "w.h5"\n[split]\ndesign = "given"\n',
        "initial values, which are not known",
    ),
    "rewound before pruning at once": (
        "cwrf",
        '[prune]\nschedule = "one-shot"\n[defense.settings]\nwhen = "before"\n',
        "which must spare them; given: prune.schedule one-shot",
    ),
    "rewound before no pruning at all": (
        "cwrf",
        '[prune]\nsparsity = 0\n[defense.settings]\nwhen = "before"\n',
        "given: prune.schedule iterative, sparsity 0",
    ),
    "rewound before ADMM": (
        "cwrf+mia-pruning",
        '[defense.settings]\nwhen = "before"\n',
        "given: pruning by ADMM",
    ),
    "a window wider than the class": ("wemem:swmr", "[defense.settings]\nwindow = 999\n", "wider than every"),
    "a control's window likewise": ("less-data", "[defense.settings]\nwindow = 9999\n", "wider than every"),
    "a setting out of range": ("selena", "[defense.settings]\nleft_out = 0\n", "left_out"),
    "a setting that does not exist": ("dpsgd", "[defense.settings]\nsigma = 1\n", "no setting 'sigma'"),
    "a delta that gives a row away": (
        "dpsgd",
        "[defense.settings]\ndelta = 0.01\n",
        "given: delta 0.01 for 1",  # some 144 rows, half of a pool of 288
    ),
    "a delta for fewer rows, composed": (
        "cwrf+dpsgd",
        "[defense.settings]\ndelta = 0.01\n",
        "well below one over the number of rows",
    ),
    "a plus with nothing behind it": ("hamp+", "", "a plus with nothing on one side"),
    "parts that do not go together": ("dpsgd+wemem", "", "do not go together"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(5)
    y = rng.permutation(np.arange(400) % 4)
    x = (rng.normal(size=(400, 6)) + y[:, None]).astype(np.float32)
    np.savez(home / "good.npz", x=x, y=y)
    np.savez(home / "t.npz", x=x[:150], y=y[:150])
    np.savez(home / "h.npz", x=x[150:], y=y[150:])
    (home / "f.py").write_text("def f(model, x, y):\n    return model\n")
    (home / "w.h5").write_bytes(b"weights")
    return home


@pytest.mark.parametrize("case", CASES)
@pytest.mark.tflite
@pytest.mark.executorch
def test_one_line_before_anything_is_trained(
    in_process: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    defense, more, words = CASES[case]
    given = "given" in more
    rows = 'train = "t.npz"\nholdout = "h.npz"' if given else 'source = "good.npz"'
    top = "".join(f"{line}\n" for line in more.splitlines()[:1] if "=" in line)
    rest = more if not top else "\n".join(more.splitlines()[1:])
    text = f'{top}[defense]\nname = "{defense}"\n{rest}\n[data]\n{rows}\n'
    (folder / "recipe.toml").write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    done = in_process("compress", "recipe.toml", "--dry-run", cwd=folder)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("defense", "settings"),
    [
        ("advreg", ""),
        ("cwrf", ""),
        ("defensive-quantization", ""),
        ("mia-pruning:minmax", ""),
        ("wemem+advreg", ""),
        ("mixup", "mmd = 3.0"),
        ("mixup", ""),
        ("selena", ""),
    ],
)
@pytest.mark.tflite
def test_reference_rows_that_stand_in_the_pool_too_are_refused_by_who_learns_from_them(
    in_process: Callable[..., Any], folder: Path, tmp_path: Path, defense: str, settings: str
) -> None:
    """Two of them are written over with a member and a non-member, one with another reference row."""
    with np.load(folder / "good.npz") as good:
        x, y = good["x"], good["y"]
    recipe = f'[defense]\nname = "{defense}"\n[defense.settings]\n{settings}\n[data]\nsource = "rows.npz"\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    split = make_split(load_source(DataSpec(str(tmp_path / "rows.npz"))), "half", Shares(), 0, 2)
    at = {row: k for k, row in enumerate(load_source(DataSpec(str(tmp_path / "rows.npz"))).pool.ids.tolist())}
    reference, inside = [at[row] for row in split.roles["reference"].tolist()], split.members(0)
    x[reference[0]] = x[at[split.roles["pool"][inside][3]]]
    x[reference[1]] = x[at[split.roles["pool"][~inside][3]]]
    x[reference[2]] = x[reference[3]]
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    done = in_process("compress", "recipe.toml", "--dry-run", cwd=tmp_path)
    if defense == "selena" or (defense == "mixup" and not settings):
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"'{defense}' learns from reference rows" in done.stderr
    assert f"given: 2 of {len(reference)} reference rows; allowed: none" in done.stderr
    assert "keep one of each" in done.stderr
