"""The files of a run on one device: the target's always, the shadows' where that makes a difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgeprivacy.cache import Cache
from edgeprivacy.confidences import Confidences, Performance
from edgeprivacy.data.dataset import Dataset
from edgeprivacy.data.splits import Split
from edgeprivacy.device_runner import Queries, Runner
from edgeprivacy.drift import drift_between, equal
from edgeprivacy.errors import EdgePrivacyError
from edgeprivacy.release import Release, collected, release_queries
from edgeprivacy.results import Drift

ShadowDevice = Literal["auto", "host", "same"]


@dataclass(frozen=True)
class Column:
    """What the files of a run answered in one place: a column of the report.

    Attributes:
        releases: The target, then its shadows, with the confidences that the audit is about.
        shadow_device: Where the shadows' confidences are from, and why; None on the host.
        drift: Of each file of the target, against other runners.
        performance: Of each file of the target; None where it was not measured.
        equal: Whether every confidence is the host's, to the last bit.
    """

    runner: Runner
    releases: tuple[Release, ...]
    shadow_device: str | None = None
    drift: tuple[tuple[Drift, ...], ...] = ()
    performance: tuple[Performance | None, ...] = ()
    equal: bool = True

    @property
    def label(self) -> str:
        """The device as a user names it."""
        return self.runner.label


def collect_on(
    runner: Runner,
    releases: Sequence[Release],
    data: Dataset,
    split: Split,
    cache: Cache,
    shadow_device: ShadowDevice = "auto",
    native: Runner | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> Column:
    """Run the target's files on a device, compare with the host, and decide about the shadows.

    By default the shadows' files are run on the device as well where its answers differ from the host's in
    any bit: an attacker who knows the device would. Where they are equal, the host's are the device's.

    Args:
        releases: With the host's confidences.
        native: Runs the target's files by the same programs on this machine, for comparison; None for not.
        step: Called with a few words after each finished step.

    Raises:
        RunnerError: The device failed; a run that was cut goes on where it stopped.
    """
    queries, queries_hash = release_queries(data, split)
    target = releases[0]
    files = [made.file for made in target.artifacts]
    paths = collected(runner, cache, files, queries, queries_hash)
    step(f"{runner.label}: files")
    performance = tuple(runner.measure(files, queries))
    step(f"{runner.label}: latency")
    here = [Confidences.load(path) for path in paths]
    on_host = [
        drift_between(ours, Confidences.load(made.confidences), "host")
        for ours, made in zip(here, target.artifacts, strict=True)
    ]
    drift = [[entry] for entry in on_host]
    if native is not None and runner.name != native.name:
        for entries, entry in zip(drift, _native_drift(native, files, here, queries), strict=True):
            entries.append(entry)
    bit_equal = all(map(equal, on_host))
    same = shadow_device == "same" or (shadow_device == "auto" and not bit_equal)
    chosen = [_at(target, paths)]
    if not same or len(releases) == 1:
        chosen += releases[1:]
    else:
        every = [made.file for release in releases[1:] for made in release.artifacts]
        found = collected(runner, cache, every, queries, queries_hash)
        width = len(target.artifacts)
        chosen += [
            _at(release, found[number * width : (number + 1) * width])
            for number, release in enumerate(releases[1:])
        ]
    step(f"{runner.label}: shadows")
    return Column(
        runner,
        tuple(chosen),
        _why(shadow_device, same, bit_equal, runner.label) if len(releases) > 1 else None,
        tuple(map(tuple, drift)),
        performance,
        bit_equal and not same,
    )


def _native_drift(
    native: Runner, files: Sequence[Path], here: Sequence[Confidences], queries: Queries
) -> list[Drift]:
    """Against the same programs on this machine; why not, where they cannot be built."""
    try:
        answers = native.collect(files, queries)
    except EdgePrivacyError as error:
        return [Drift(native.name, not_run=str(error))] * len(files)
    finally:
        native.close()
    return [drift_between(ours, theirs, native.name) for ours, theirs in zip(here, answers, strict=True)]


def _at(release: Release, paths: Sequence[Path]) -> Release:
    """A release with these confidences."""
    pairs = zip(release.artifacts, paths, strict=True)
    return replace(release, artifacts=tuple(replace(made, confidences=path) for made, path in pairs))


def _why(asked: ShadowDevice, same: bool, bit_equal: bool, label: str) -> str:
    where = label if same else "host"
    if asked != "auto":
        return f"{where}, as asked"
    if bit_equal:
        return f"{where}: the answers of {label} are the host's to the last bit"
    return f"{where}: its answers differ from the host's"
