"""`edgeprivacy defenses`: the list, and the explanation of every one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from edgeprivacy.defenses import defenses, make_defense


def test_every_defense_is_listed_and_explained(in_process: Callable[..., Any]) -> None:
    done = in_process("defenses", "--json")
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert list(listed) == list(defenses)
    assert listed["selena"]["trains_the_original"] and not listed["wemem"]["trains_the_original"]
    assert "soft labels" in listed["selena"]["needs"] and "memorability" in listed["wemem"]["needs"]
    for name, entry in listed.items():
        told = in_process("defenses", "--explain", name)
        assert told.returncode == 0 and told.stdout.startswith(f"{name}, version {entry['version']}")
        words = " ".join(told.stdout.split())
        for what in ("method", "paper", "needs", "cost"):
            assert " ".join(entry[what].split()) in words and entry[what], f"{name}: {what}"
        lines = told.stdout.splitlines()
        assert len(lines) <= 17 and max(map(len, lines)) <= 130, name
        explained = {s: text for key, text in entry["meanings"].items() for s in key.split(", ")}
        assert explained.keys() == entry["settings"].keys(), f"{name}: what are its settings?"
        for setting, meaning in explained.items():
            assert f"{setting}=" in told.stdout, f"{name}: {setting}"
            # Whether the original is trained as well stands beside what is trained.
            assert setting == "original" or any(f"{setting}=" in of and meaning in of for of in lines)


def test_costs_follow_from_settings(in_process: Callable[..., Any]) -> None:
    costs = {entry["name"]: entry["cost"] for entry in json.loads(in_process("defenses", "--json").stdout)}
    table = " ".join(in_process("defenses").stdout.split())
    assert "cost" in table and "per-row gradients" in costs["dpsgd"]
    assert costs["selena"] == "10 trainings of the original on 60 % of the rows each"
    assert costs["none"] == costs["relaxloss"] == "as no defense"
    assert "25 % of the rows" in costs["wemem"] and costs["less-data"] == "25 % of the rows in an epoch"
    assert "13 compressions apart" in costs["wemem:auto"]
    for name, settings, words in (
        ("selena", {"sub_models": 4, "left_out": 1}, "4 trainings of the original on 75 %"),
        ("wemem", {"window": 12}, "12 rows of each class"),
        ("early-stopping", {"epochs": 3}, "at most 3 epochs"),
        ("advreg", {"steps": 7}, "a second network's 7 steps"),
        ("mia-pruning", {"epochs": 9}, "9 epochs and one fine-tuning"),
        ("cwrf", {"epochs": 4}, "epochs: 4"),
        ("defensive-quantization", {"epochs": 6}, "6 epochs more"),
        ("mixup", {"mmd": 1}, "reference rows beside each batch"),
    ):
        assert words in make_defense(name, settings).cost
        assert words not in costs[name]
    assert (
        "10 trainings" in make_defense("cwrf+selena").cost and "epochs: 1" in make_defense("cwrf+selena").cost
    )
    assert "at most 5 epochs" in make_defense("early-stopping+relaxloss").cost


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
