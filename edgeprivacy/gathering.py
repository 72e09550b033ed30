"""Asks files what attacks with queries of their own want to know: `Signals.gathered`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.attacks import attacks
from edgeprivacy.attacks.queries import Ask, InputSpace, QueryAttack, Rows
from edgeprivacy.converters import read_facts
from edgeprivacy.converters.facts import TensorFacts
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.errors import DataError
from edgeprivacy.seeding import generator

Progress = Callable[[int, int, str], None]

_BLOCK_BYTES = 1 << 25
"""Of rows as float32 that are varied together: an attack holds some copies of them."""


def query_attacks(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the named attacks that ask files more than once a row.

    Raises:
        UsageError: Unknown attack, with the closest known name.
    """
    return tuple(name for name in names if isinstance(attacks[name], QueryAttack))


def gather(
    names: Sequence[str],
    runner: Runner,
    files: Sequence[Path],
    queries: Queries,
    *,
    logits: bool = False,
    seed: int = 0,
    progress: Progress = lambda done, total, text: None,
) -> dict[str, NDArray[Any]]:
    """What the named attacks ask of every file about every row, by attack: [files, rows, ...].

    All files are asked with the same random noise, as wide as the coarsest of their inputs needs, so that
    the answers of shadows and target differ by their training alone. The same rows in the same order, the
    same seed and the same files give the same answers.

    Args:
        names: Attacks; those that ask nothing are left out of the result.
        runner: Where the files are run.
        files: The models of the signals, in their order.
        queries: The rows of the signals, in their order, in units of the original model's input; with labels.
        logits: The files answer logits.
        seed: Of all noise.
        progress: Called with steps done, steps in all and the last finished step; a step is a file, an
            attack and a block of rows.

    Returns:
        Arrays for `Signals.gathered`. An attack that cannot vary such rows has [files, rows, 0]: its
        `missing` gives the reason.

    Raises:
        UsageError: Unknown attack.
        DataError: Labels are not known, or rows do not fit a file.
        ArtifactError, MissingDependency, RunnerError: See `Runner.collect`.
    """
    asking = query_attacks(names)
    if not asking or not files:
        return {}
    if (queries.labels < 0).any():
        raise DataError(
            f"{', '.join(asking)} cannot be run without true labels",
            got=f"{int((queries.labels < 0).sum())} rows without a label",
        )
    inputs = [_input(file) for file in files]
    space = InputSpace.of(queries.x, max(_quantum(tensor) for tensor in inputs))
    asks = [_ask(runner, file, tensor, logits) for file, tensor in zip(files, inputs, strict=True)]
    blocks = list(_blocks(queries.x))
    done, total = 0, len(asking) * len(blocks) * len(files)
    found: dict[str, NDArray[Any]] = {}
    for name in asking:
        attack = attacks[name]
        assert isinstance(attack, QueryAttack)
        if not attack.usable(queries.x):
            found[name] = np.zeros((len(files), len(queries.x), 0), dtype=np.float32)
            done += len(blocks) * len(files)
            continue
        parts: list[list[NDArray[Any]]] = [[] for _ in files]
        for block in blocks:
            for ask, file, part in zip(asks, files, parts, strict=True):
                rng = generator(seed, "gather", name, block.start)
                part.append(attack.gather(ask, queries.x[block], queries.labels[block], space, rng))
                progress(done := done + 1, total, f"{name} asked {file.name}")
        found[name] = np.stack([np.concatenate(part) for part in parts])
    return found


def _input(file: Path) -> TensorFacts | None:
    """The input of a file, None where it does not tell."""
    facts = read_facts(file)
    return facts.inputs[0] if facts.inputs else None


def _takes_whole_numbers(tensor: TensorFacts | None) -> bool:
    return tensor is not None and tensor.scale is None and "int" in tensor.dtype


def _quantum(tensor: TensorFacts | None) -> float:
    """Step of an input, 0.0 for floats; see `InputSpace`."""
    if tensor is None or "int" not in tensor.dtype:
        return 0.0
    return 1.0 if tensor.scale is None else float(tensor.scale)


def _ask(runner: Runner, file: Path, tensor: TensorFacts | None, logits: bool) -> Ask:
    """One file as a function of rows."""

    def ask(x: Rows) -> NDArray[np.float32]:
        if _takes_whole_numbers(tensor) and x.dtype.kind == "f":
            assert tensor is not None
            limits = np.iinfo(tensor.dtype)
            x = np.clip(np.rint(x), limits.min, limits.max)
        names = np.full(len(x), "a row of an attack's own", dtype=np.str_)
        unknown = np.full(len(x), -1, dtype=np.int64)
        return runner.collect([file], Queries(x, names, unknown), logits=logits)[0].probabilities

    return ask


def _blocks(x: Rows) -> Iterator[slice]:
    """Slices of rows that are varied together; they hang on the rows' shape alone."""
    size = max(1, _BLOCK_BYTES // (4 * max(1, math.prod(x.shape[1:]))))
    for start in range(0, len(x), size):
        yield slice(start, min(start + size, len(x)))
