"""What a loss is written against: a batch, and the array operations that each backend provides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class ArrayOps(Protocol):
    """Array operations that a backend provides; arrays are the backend's own tensors.

    Tensors also know +, -, *, /, abs() and comparisons by themselves.
    """

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Per-row cross-entropy [batch] of logits [batch, classes] against integer labels [batch]; of
        independent labels [batch, labels] the mean over labels of each one's binary cross-entropy."""

    def log_softmax(self, logits: Any) -> Any:
        """Logarithms of the probabilities [batch, classes]."""

    def one_hot(self, labels: Any, classes: int) -> Any:
        """1 at the label and 0 elsewhere: [batch, classes] of integer labels [batch]."""

    def argmax(self, values: Any) -> Any:
        """Position of the largest of each row: integers [batch] of [batch, classes]."""

    def sort_descending(self, values: Any) -> Any:
        """Each row sorted, the largest first; gradients go back to where a value came from."""

    def halves(self, values: Any) -> tuple[Any, Any]:
        """The first and the second half of the rows; the last of an odd number is in neither."""

    def exp(self, values: Any) -> Any:
        """Exponential of each entry."""

    def log(self, values: Any) -> Any:
        """Natural logarithm of each entry."""

    def relu(self, values: Any) -> Any:
        """Each entry, or 0 where it is negative."""

    def softplus(self, values: Any) -> Any:
        """log(1 + exp(v)) of each entry v."""

    def matmul(self, left: Any, right: Any) -> Any:
        """Matrix product [n, m] of [n, k] and [k, m]."""

    def transpose(self, values: Any) -> Any:
        """[m, n] of [n, m]."""

    def beside(self, left: Any, right: Any) -> Any:
        """Both side by side along the last axis, as floats."""

    def constant(self, values: Any) -> Any:
        """The same, through which no gradient flows."""

    def minimum(self, values: Any, limit: float) -> Any:
        """The smaller one of each entry and a number."""

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        """Entries of `then` where the condition holds, of `otherwise` elsewhere."""

    def sum(self, values: Any) -> Any:
        """Sum over the last axis: [batch] of [batch, classes]."""

    def mean(self, values: Any) -> Any:
        """Mean over all entries."""

    def mean_or_zero(self, values: Any) -> Any:
        """Mean over all entries, 0 where there are none."""


@dataclass(frozen=True)
class Batch:
    """What the loss of a batch may see. Tensors of the backend.

    Attributes:
        logits: float32 [batch, classes]; of a network with one sigmoid unit the pair (0, z).
        labels: int64 [batch]; 0 and 1 [batch, classes] where a row has several independent labels.
        epoch: float32 scalar, the epoch of the phase, from 0.
        columns: What the defense knows of these rows: for each array of `Defense.columns` its entries
            [batch, ...].
        partners: Where inputs were mixed the labels of the rows mixed in, int64 [batch]; else None.
        share: float32 scalar, the rows' own part of the mixed inputs; 1 where nothing was mixed.
        others: As many reference rows, where the defense wants some: their logits and labels.
        inferred: How sure the defense's opponent is that these rows are members: logits [batch].
    """

    logits: Any
    labels: Any
    epoch: Any = 0.0
    columns: Mapping[str, Any] = field(default_factory=dict)
    partners: Any = None
    share: Any = 1.0
    others: Batch | None = None
    inferred: Any = None
