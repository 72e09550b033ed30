"""What an interpreter answered, as confidences with the facts of the run. Shared by all runners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from edgeprivacy.confidences import FLOAT_LOG_FLOOR, Confidences, OutputGrid
from edgeprivacy.device_runner.base import Queries
from edgeprivacy.device_runner.outputs import OutputFormat, probabilities_of
from edgeprivacy.device_runner.runtimes import ModelFile
from edgeprivacy.multi_label import confidences_of_label_sets, sigmoids_of


def confidences_of(
    file: ModelFile, raw: NDArray[Any], queries: Queries, logits: bool, facts: dict[str, Any]
) -> Confidences:
    """The output tensor [rows, columns] of a file as probabilities, with the grid that they lie on.

    Args:
        raw: As the file gave it.
        logits: It answers logits: apply the softmax.
        facts: Of the run; "rows" and "seconds" among them.

    Raises:
        DataError, ArtifactError: See `probabilities_of`.
    """
    grid = file.grid
    if grid is not None and file.own_grid:
        # Without a softmax of ours the file's grid is the grid of the probabilities themselves.
        grid = OutputGrid(grid.scale, grid.zero_point, "logits" if logits else "probabilities")
    step = grid.scale if grid is not None and file.own_grid else 0.0
    how = OutputFormat(file.path, file.scale, file.zero_point, step, file.ends_in)
    seconds = facts["seconds"]
    facts = {
        **facts,
        "rows_per_second": facts["rows"] / seconds if seconds > 0 else None,
        "logits": logits,
        "model": file.path.name,
    }
    kept = raw if raw.dtype.kind in "iu" else None
    if queries.labels.ndim == 2:
        on_grid = grid is not None and grid.on == "probabilities"
        floor = grid.scale / 2 if grid is not None and on_grid else FLOAT_LOG_FLOOR
        answers = sigmoids_of(raw, how, logits)
        found = confidences_of_label_sets(answers, queries.labels, queries.row_ids, file.path.name, floor)
        # The grid is that of single labels: a row as a whole lies on none.
        return replace(found, raw=kept, facts=facts)
    return Confidences(
        probabilities=probabilities_of(raw, how, logits),
        row_ids=queries.row_ids,
        labels=queries.labels,
        raw=kept,
        grid=grid,
        facts=facts,
    )
