"""`wemem:auto` through the installed command: what it chose is in the report, and is chosen once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = """
backend = "tflite"
compare = ["none"]
formats = ["float32"]
defense = "wemem:auto"
[training]
epochs = 4
[prune]
iterations = 2
finetune_epochs = 2
[audit]
shadows = 2
attacks = ["loss"]
"""
CHOSE = r"wemem:auto chose order (\S+), window_share (\S+), step_share (\S+?)(?:, top_share (\S+))?: "


@pytest.mark.tflite
def test_it_chooses_once_and_says_why(edgeprivacy: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra tflite")
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def run(*more: str) -> dict[str, Any]:
        done = edgeprivacy(
            "compress", "recipe.toml", "--quiet", *more, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")
        )
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads((tmp_path / more[1] / "audit.json").read_text())
        return content

    first = run("--out", "one")
    (note,) = [note for note in first["notes"] if "wemem:auto chose" in note]
    order, window, step, top = re.match(CHOSE, note).groups()
    assert "of 12 settings" in note and "validation rows" in note
    assert note[:60] in (tmp_path / "one" / "report.html").read_text()
    trials = list((tmp_path / "cache" / "edgeprivacy" / "trial").glob("*/*/meta.json"))
    assert len(trials) == 13, "twelve settings and no defense, once for target and shadows"
    assert all(set(json.loads(path.read_text())) == {"accuracy", "leakage"} for path in trials)
    again = run("--out", "two")
    assert again["environment"]["releases"]["trained"] == 0 and note in again["notes"]

    # What it chose, given by hand, makes the same files.
    shares = {"0.222": 2 / 9, "0.444": 4 / 9, "0.0222": 1 / 45, "0.0444": 2 / 45}
    settings = {"order": f'"{order}"', "window_share": shares[window], "step_share": shares[step]}
    settings |= {"top_share": top} if top else {}
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    by_hand = RECIPE.replace('defense = "wemem:auto"\n', "")
    table = f'[defense]\nname = "wemem:auto"\n[defense.settings]\n{lines}\n'
    (tmp_path / "recipe.toml").write_text(by_hand + table)
    given = run("--out", "three")
    assert not [note for note in given["notes"] if "chose" in note]

    def hashes(audit: dict[str, Any]) -> list[str]:
        return [artifact["sha256"] for artifact in audit["artifacts"]]

    assert hashes(given) == hashes(first)
