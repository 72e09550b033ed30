"""`edgeprivacy attacks`, as a process."""

from __future__ import annotations

import json

import numpy as np


def test_the_list_says_what_each_attack_costs(edgeprivacy) -> None:
    done = edgeprivacy("attacks")
    assert done.returncode == 0 and done.stderr == ""
    line = next(line for line in done.stdout.splitlines() if line.startswith(" lira.online *"))
    assert "4+ shadows" in line and "Carlini" in line
    assert "wemem10" in done.stdout and "* run where no attack is named" in done.stdout


def test_one_attack_is_explained(edgeprivacy) -> None:
    done = edgeprivacy("attacks", "--explain", "compleak.sr")
    assert done.returncode == 0
    for words in (
        "p_o is the original's posterior",
        "Chen et al., CCS 2021",
        "needs",
        "1 query a row, of 2+ files, 1+ shadow",
    ):
        assert words in done.stdout
    assert "in sets       release, all, compleak" in done.stdout


def test_a_set_is_explained_and_json_has_it_all(edgeprivacy) -> None:
    done = edgeprivacy("attacks", "--explain", "wemem10", "--json")
    entries = json.loads(done.stdout)
    assert "blindmi" in [entry["name"] for entry in entries]
    every = json.loads(edgeprivacy("attacks", "--json").stdout)
    for entry in every:
        assert set(entry) == {
            *("name", "paper", "threat_model", "needs", "cost", "version", "default", "sets", "formula"),
        }
        assert entry["formula"] and entry["paper"] and entry["threat_model"], entry["name"]


def test_an_unknown_name_is_one_line(edgeprivacy) -> None:
    done = edgeprivacy("attacks", "--explain", "lira.onlin")
    assert done.returncode == 2 and "did you mean 'lira.online'" in done.stderr and done.stdout == ""


def test_sets_stand_where_attacks_are_named(edgeprivacy, tmp_path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "t.npz",
        probabilities=rng.dirichlet(np.ones(3), 120).astype(np.float32),
        labels=rng.integers(0, 3, 120),
        member=np.arange(120) % 2 == 0,
    )
    table = ("attack", "--table", tmp_path / "t.npz", "--json")
    done = edgeprivacy(*table, "--attacks", "wemem10,gap,lira.online", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    names = [attack["name"] for attack in artifact["attacks"]]
    assert len(names) == 11 and names[-1] == "gap" and names.count("lira.online") == 1
    # What cannot run here says so; the rest ran.
    skipped = {attack["name"] for attack in artifact["attacks"] if attack.get("skipped")}
    assert skipped == {"lira.online", "samia", "blindmi"}
    wrong = edgeprivacy(*table, "--attacks", "wemem", cwd=tmp_path)
    assert wrong.returncode == 2 and "did you mean 'wemem10'" in wrong.stderr
