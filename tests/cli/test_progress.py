"""Progress where nobody watches: a line now and then, in a log."""

from __future__ import annotations

import pytest

from edgeprivacy.cli.options import progress_bar


def lines(capsys: pytest.CaptureFixture[str], *calls: tuple[int, int, str]) -> list[str]:
    with progress_bar(quiet=False, title="settings") as progress:
        for call in calls:
            progress(*call)
    done = capsys.readouterr()
    assert done.out == ""
    return done.err.splitlines()


def test_the_first_and_the_last_step_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    begun = [(0, 3, "selena: 0/34"), (0, 3, "selena: 1/34"), (0, 3, "selena: 2/34")]
    said = lines(capsys, *begun, (1, 3, "hamp: 0/34"), (3, 3, ""), (3, 3, ""))
    assert said == ["settings: 0/3 steps, 0 s (selena: 0/34)", "settings: 3/3 steps, 0 s"]


def test_a_new_part_of_the_work_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = lines(capsys, (0, 2, "releases | a"), (2, 2, "releases | b"), (0, 2, "attacks | c"))
    assert said == [
        "releases: 0/2 steps, 0 s (a)",
        "releases: 2/2 steps, 0 s",
        "attacks: 0/2 steps, 0 s (c)",
    ]
