"""Run a model file on rows and keep what it answered: the first half of an audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeprivacy.confidences import Confidences
from edgeprivacy.converters import read_facts
from edgeprivacy.data.loading import DataSpec, load_sides
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.found_facts import answered_classes, artifact_facts
from edgeprivacy.probabilities import labels_in_range


def collect(
    file: Path,
    data: str,
    *,
    part: str = "rows",
    label: str | None = None,
    header: bool = True,
    logits: bool = False,
    device: str = "host",
) -> Confidences:
    """The confidences of a model file on rows.

    Rows without ids of their own are named after their source and its content, so that two sources with one
    file name are not taken for each other when members and non-members are compared by id.

    Args:
        file: A model file (.tflite, .pte or .ptl).
        data: An .npz, a CSV, an image folder, or a factory.
        part: What a factory that takes `part` is called with.
        label: Label column of a CSV.
        header: Whether a CSV begins with column names.
        logits: The file answers logits: apply the softmax.
        device: Where the file is run.

    Raises:
        UsageError: Unknown device.
        ArtifactError: No model file of a known kind.
        DataError: Rows cannot be read or do not fit the file, or its answers are no distributions.
        RunnerError: The interpreter failed.
    """
    runner = open_runner(device)
    facts = read_facts(file)
    runner.identity(file)  # names a missing interpreter before rows are read
    spec = DataSpec(label=label, header=header, classes=answered_classes([file], [facts]), label_sets=True)
    rows = load_sides({part: data}, spec)[part].data
    source = f"{Path(rows.source).stem}-{rows.sha256[:8]}"
    ids = [
        f"{source}:{row_id.removeprefix(f'{part}:')}" if row_id.startswith(f"{part}:") else row_id
        for row_id in rows.ids.tolist()
    ]
    queries = Queries(rows.x, np.array(ids, dtype=np.str_), rows.y)
    try:
        confidences = runner.collect([file], queries, logits=logits)[0]
    finally:
        runner.close()
    labels_in_range(rows.y, confidences.probabilities.shape[1], rows.source)
    known = {
        "artifact": artifact_facts(file, facts),
        "data": {"file": rows.source, "rows": len(rows), "sha256": rows.sha256},
    }
    return replace(confidences, facts={**confidences.facts, **known})
