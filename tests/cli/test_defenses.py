"""`edgeprivacy defenses`: the list, and the explanation of every one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from edgeprivacy.defenses import defenses


def test_every_defense_is_listed_and_explained(in_process: Callable[..., Any]) -> None:
    done = in_process("defenses", "--json")
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert list(listed) == list(defenses)
    assert listed["selena"]["trains_the_original"] and not listed["wemem"]["trains_the_original"]
    assert "soft labels" in listed["selena"]["needs"] and "memorability" in listed["wemem"]["needs"]
    for name, entry in listed.items():
        told = in_process("defenses", "--explain", name)
        assert told.returncode == 0 and told.stdout.startswith(f"{name}, version {entry['version']}")
        assert entry["method"] in told.stdout and entry["paper"] in told.stdout
        for setting in entry["settings"]:
            assert f"{setting}=" in told.stdout, f"{name}: {setting}"
            # Whether the original is trained as well has a line of its own.
            assert setting in entry["method"] or setting == "original", f"{name}: what is {setting}?"


def test_a_composition_is_explained_by_its_parts(in_process: Callable[..., Any]) -> None:
    done = in_process("defenses", "--explain", "wemem+relaxloss")
    assert done.stdout.index("wemem, version") < done.stdout.index("relaxloss, version")


@pytest.mark.parametrize(
    ("name", "words"),
    [("selenna", "did you mean 'selena'?"), ("hamp+relaxloss", "do not go together")],
)
def test_mistakes(in_process: Callable[..., Any], name: str, words: str) -> None:
    done = in_process("defenses", "--explain", name)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
