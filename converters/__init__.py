"""Framework model to file, and facts read back from the file. One folder a container format."""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.converters.facts import ArtifactFacts, Request, TensorFacts, WeightFacts

__all__ = ["ArtifactFacts", "Request", "TensorFacts", "WeightFacts", "read_facts"]


def read_facts(path: Path) -> ArtifactFacts:
    """Facts of a model file of any known container, recognised by its bytes.

    Raises:
        ArtifactError: The file is missing, truncated, or of no known container.
    """
    from edgeprivacy.converters.tflite.facts import read_tflite_facts

    return read_tflite_facts(path)
