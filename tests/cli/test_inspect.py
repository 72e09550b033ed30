"""`edgeprivacy inspect` as its user meets it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


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
