"""`edgeprivacy inspect` as its user meets it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _run(*arguments: str, block: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfor n in {block.split()!r}: sys.modules[n] = None\n"
    code += "from edgeprivacy.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_table_shows_what_the_file_holds_without_tensorflow(zoo: Any) -> None:
    path = zoo.files["conv", "int8"]
    done = _run("inspect", str(path), str(zoo.files["mlp", "float32"]), block="tensorflow tf_keras torch")
    assert (done.returncode, done.stderr) == (0, "")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stdout
    for part in ("DEPTHWISE_CONV_2D", "1×3×3×16", "zero point -128", "on the probabilities", "none (float)"):
        assert part in done.stdout
    assert f"{path.stat().st_size:,} bytes" in done.stdout


def test_json_is_the_facts(zoo: Any) -> None:
    path = zoo.files["mlp", "int8"]
    done = _run("inspect", "--json", str(path))
    (entry,) = json.loads(done.stdout)
    assert entry["file"] == str(path) and entry["size_bytes"] == path.stat().st_size
    assert [w["shape"] for w in entry["weights"]] == [[48, 64], [32, 48], [10, 32]]
    assert entry["output_grid"] == {"scale": 1 / 256, "zero_point": -128, "on": "probabilities"}


def test_bad_files_and_usage_end_in_one_line(tmp_path: Path) -> None:
    missing = _run("inspect", str(tmp_path / "none.tflite"))
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "does not exist" in missing.stderr
    (tmp_path / "m.keras").write_bytes(b"PK\x03\x04 metadata.json")
    foreign = _run("inspect", str(tmp_path / "m.keras"))
    assert foreign.returncode == 2 and "a Keras model" in foreign.stderr and foreign.stdout == ""
    assert _run("inspect").returncode == 2
    assert "edgeprivacy inspect model.tflite --json" in _run("inspect", "--help").stdout


def test_torch_files_are_shown_without_torch(tmp_path: Path) -> None:
    """Made in a process of its own: conversion sets threads and engines that other tests must not inherit."""
    pytest.importorskip("executorch", reason="needs the extra executorch")
    code = (
        "import sys, torch, numpy as np\nfrom pathlib import Path\n"
        "from edgeprivacy.converters.executorch.convert import convert\n"
        "from edgeprivacy.converters.ptl.convert import convert_ptl\n"
        "nn = torch.nn\nm = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3), nn.Softmax(-1))\n"
        "x = np.random.default_rng(0).random((20, 6), np.float32)\n"
        "convert(m, 'float32', None, Path(sys.argv[1]), None, (6,))\n"
        "convert_ptl(m, 'ptl-int8', x, Path(sys.argv[2]), None, (6,))\n"
    )
    files = [str(tmp_path / "m.pte"), str(tmp_path / "m.ptl")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, capture_output=True)
    done = _run("inspect", *files, block="torch executorch torchao tensorflow ai_edge_litert")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("xnnpack:FullyConnected", "at most 256 rows", "XnnpackBackend, payload", "4×6", "legacy"):
        assert part in done.stdout
    assert "on the logits" in done.stdout and "quantized::linear" in done.stdout
    first, second = json.loads(_run("inspect", "--json", *files).stdout)
    assert (first["container"], second["container"]) == ("pte", "ptl")
    assert first["batch_capacity"] == 256 and first["delegates"][0]["id"] == "XnnpackBackend"
    assert [w["dtype"] for w in second["weights"]] == ["int8", "int8"]
    assert second["inputs"][0]["shape"] == [-1, 6]
