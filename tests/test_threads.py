"""Work side by side: order, the first error, and who is told to stop."""

from __future__ import annotations

import threading
import time

import pytest

from edgeprivacy.threads import side_by_side


def test_results_keep_the_order_of_the_items_and_run_at_the_same_time() -> None:
    meet = threading.Barrier(3, timeout=10)

    def work(number: int) -> int:
        meet.wait()  # passes only if all three are here at once
        time.sleep(0.01 * (3 - number))
        return number * number

    assert side_by_side(work, [0, 1, 2], lambda: None) == [0, 1, 4]


def test_a_single_item_runs_in_the_callers_thread() -> None:
    assert side_by_side(lambda _: threading.current_thread(), ["x"], lambda: None) == [
        threading.current_thread()
    ]


def test_the_first_error_is_raised_at_once_and_the_others_are_told() -> None:
    told = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("broken")
        assert told.wait(10)

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        side_by_side(work, [0, 1], told.set)
    assert told.is_set() and time.monotonic() - began < 5
