"""Work side by side in threads, for work that waits for something else: devices, not processors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], cancel: Callable[[], None]
) -> list[Result]:
    """Results in the order of the items, each item in a thread of its own; a single one in this thread.

    Args:
        cancel: Called once when an item fails or on Ctrl-C: makes the others end soon. They are not waited
            for.

    Raises:
        Exception: What the first failing item raised.
    """
    if len(items) == 1:
        return [function(items[0])]
    ended: SimpleQueue[tuple[int, Result | None, BaseException | None]] = SimpleQueue()

    def work(number: int) -> None:
        try:
            ended.put((number, function(items[number]), None))
        except BaseException as error:
            ended.put((number, None, error))

    for number in range(len(items)):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    results: dict[int, Result] = {}
    try:
        while len(results) < len(items):
            number, result, error = ended.get()
            if error is not None:
                raise error
            results[number] = result  # type: ignore[assignment]
    except BaseException:
        cancel()
        raise
    return [results[number] for number in range(len(items))]
