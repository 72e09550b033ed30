"""A .tflite file that answers what its last softmax reads.

An int8 file rounds its probabilities to steps of 1/256: of a class that it finds unlikely only zero is left.
The tensor before the softmax has steps of its own, and whoever holds the file can read it. What is written
here is the shipped file with another number for its output tensor; every operator stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.converters.tflite.container import TfliteFile
from edgeprivacy.files import write_bytes

_AFTER = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEQUANTIZE", "QUANTIZE")


def write_answering_logits(path: Path, to: Path) -> str | None:
    """Write the file with its logits as the output, if they tell more than its own answers.

    Returns:
        The operator whose input is answered, "SOFTMAX" or "LOGISTIC"; None, and nothing is written, where the
        file answers no rounded probabilities, or they are shaped or scaled after it.

    Raises:
        ArtifactError: Missing, damaged, or no .tflite file.
        MissingDependency: The extra "litert" is not installed.
    """
    file = TfliteFile(path)
    grid, own = file.output_grid
    if grid is None or not own or grid.on != "probabilities":
        return None
    answers = file.outputs[0]
    _, operator = file.chain(answers.index, _AFTER)
    if operator is None or not operator.inputs or operator.inputs[0] < 0:
        return None
    logits = file.tensors[operator.inputs[0]]
    # Of a softmax of its own steepness a plain one of its input is not the answer.
    if logits.shape != answers.shape or (operator.name == "SOFTMAX" and file.softmax_beta(operator) != 1):
        return None
    write_bytes(to, file.with_output(logits.index))
    made = TfliteFile(to)
    if made.outputs != (logits,) or made.operators != file.operators:
        # Its graph and an operator point at one list of tensors.
        to.unlink()
        return None
    return operator.name
