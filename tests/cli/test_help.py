"""Help is complete, fast, and costs no framework."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from edgeprivacy.backends.table import BACKENDS
from edgeprivacy.cli import COMMANDS

FRAMEWORKS = ("tensorflow", "tf_keras", "torch", "keras")
HEAVY = (*FRAMEWORKS, "sklearn", "scipy", "matplotlib", "numpy", "pydantic")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples(edgeprivacy: Callable[..., Any], command: str) -> None:
    done = edgeprivacy(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    _, _, examples = done.stdout.partition("Examples:\n")
    assert f"edgeprivacy {command}" in examples


def test_help_names_every_format_and_schedule(edgeprivacy: Callable[..., Any]) -> None:
    said = "".join(edgeprivacy("compress", "--help").stdout.split())  # wrapped lines are one again
    for name, entry in BACKENDS.items():
        for value in (name, *entry.formats, *entry.schedules):
            assert value in said, value


def test_help_lists_every_command_within_three_tenths_of_a_second(edgeprivacy: Callable[..., Any]) -> None:
    times = []
    for _ in range(7):
        began = _spent_by_children()
        done = edgeprivacy("--help")
        times.append(_spent_by_children() - began)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    # The processor's time, and the fastest: the machine may be busy with another test.
    assert min(times) <= 0.3, times


def _spent_by_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after this code."""
    # On a stream of its own: help texts name frameworks too.
    program = f"{code}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_and_help_load_nothing_heavy() -> None:
    assert not modules_after("import edgeprivacy") & set(HEAVY)
    calls = "try: main([{!r}, '--help'])\nexcept SystemExit: pass\n"
    for command in COMMANDS:
        code = "from edgeprivacy.cli import main\n" + calls.format(command)
        assert not modules_after(code) & set(FRAMEWORKS), command


def test_mistakes_and_lists_do_not_wait_for_what_attacks_learn_with() -> None:
    slow = {"sklearn", "pandas", "matplotlib", *FRAMEWORKS}
    assert (
        not modules_after("import edgeprivacy.compressing, edgeprivacy.attacking, edgeprivacy.tuning") & slow
    )
    list_attacks = "from edgeprivacy.cli import main\ntry: main(['attacks'])\nexcept SystemExit: pass\n"
    assert not modules_after(list_attacks) & slow


def test_public_names_are_there_without_a_framework() -> None:
    names = "import edgeprivacy as e\nfor n in e.__all__: assert getattr(e, n) is not None, n\n"
    loaded = modules_after(names + "assert e.audit.__module__ == 'edgeprivacy.auditing'")
    assert "numpy" in loaded and not loaded & set(FRAMEWORKS)
    import edgeprivacy

    assert set(edgeprivacy.__all__) <= set(dir(edgeprivacy))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        edgeprivacy.nope  # noqa: B018
