"""What whoever holds a file can read in it: its logits, where it rounds the probabilities that it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from edgeprivacy.confidences import Confidences
from edgeprivacy.converters.recognise import container_of
from edgeprivacy.converters.tflite.logits import write_answering_logits
from edgeprivacy.device_runner.base import Queries
from edgeprivacy.device_runner.host import HostRunner
from edgeprivacy.errors import ArtifactError
from edgeprivacy.files import sha256_file
from edgeprivacy.scratch import scratch_folder


class LogitsRunner(HostRunner):
    """Runs files on the host, and takes the answers of quantized .tflite files before the last softmax.

    Files that answer no rounded probabilities (float outputs, .pte, .ptl) tell all they know: they run as
    they are, and answer as on the host.

    Args:
        kernels, threads, stall_seconds, largest_batch: See `HostRunner`.
    """

    name: ClassVar[str] = "host:logits"

    def collect(
        self, artifacts: Sequence[Path], queries: Queries, *, logits: bool = False
    ) -> list[Confidences]:
        """See `Runner.collect`. Where logits were read the facts say before which operator ("read_before"),
        and `model_sha256` is that of the file as it ships."""
        with scratch_folder("logits") as folder:
            read: dict[int, str] = {}
            files = [Path(path) for path in artifacts]
            for number, path in enumerate(artifacts):
                copy = folder / str(number) / Path(path).name
                copy.parent.mkdir()
                if container_of(path) == "tflite" and (before := write_answering_logits(path, copy)):
                    files[number], read[number] = copy, before
            found: dict[int, Confidences] = {}
            for changed in (False, True):
                some = [number for number in range(len(files)) if (number in read) is changed]
                try:
                    answers = super().collect([files[n] for n in some], queries, logits=changed or logits)
                except ArtifactError:
                    if changed:  # what is wrong with a copy is to be told of the file
                        super().collect([Path(artifacts[n]) for n in some], queries, logits=logits)
                    raise
                found |= zip(some, answers, strict=True)
        for number, before in read.items():
            told = {"read_before": before, "model_sha256": sha256_file(artifacts[number])}
            found[number] = replace(found[number], facts={**found[number].facts, **told})
        return [found[number] for number in range(len(files))]
