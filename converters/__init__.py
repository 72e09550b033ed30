"""Framework model to file, and facts read back from the file. One folder a container format."""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.converters.facts import ArtifactFacts, DelegateFacts, Request, TensorFacts, WeightFacts
from edgeprivacy.converters.recognise import container_of

__all__ = [
    "ArtifactFacts",
    "DelegateFacts",
    "Request",
    "TensorFacts",
    "WeightFacts",
    "container_of",
    "read_facts",
]


def read_facts(path: Path) -> ArtifactFacts:
    """Facts of a model file of any known container (.tflite, .pte, .ptl), recognised by its bytes.

    Raises:
        ArtifactError: The file is missing, truncated, damaged, or of no known container.
        MissingDependency: The extra that reads a .tflite is not installed. The others need none.
    """
    container = container_of(path)
    if container == "pte":
        from edgeprivacy.converters.executorch.facts import read_pte_facts

        return read_pte_facts(path)
    if container == "ptl":
        from edgeprivacy.converters.ptl.facts import read_ptl_facts

        return read_ptl_facts(path)
    from edgeprivacy.converters.tflite.facts import read_tflite_facts

    return read_tflite_facts(path)
