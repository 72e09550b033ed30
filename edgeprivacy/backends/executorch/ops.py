"""The array operations that defenses are written against, in torch."""

from __future__ import annotations

from edgeprivacy.backends.executorch.frameworks import torch


class TorchOps:
    """Implements `edgeprivacy.defenses.ArrayOps`."""

    def cross_entropy(self, logits, labels):
        """Per-row cross-entropy."""
        if labels.dim() == 2:
            wanted = labels.to(logits.dtype)
            each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            return each.mean(dim=-1)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    def log_softmax(self, logits):
        """Logarithms of the probabilities."""
        return torch.log_softmax(logits, dim=-1)

    def one_hot(self, labels, classes):
        """1 at the label and 0 elsewhere."""
        return torch.nn.functional.one_hot(labels, classes)

    def argmax(self, values):
        """Position of the largest of each row."""
        return values.argmax(dim=-1)

    def sort_descending(self, values):
        """Each row sorted, the largest first."""
        return values.sort(dim=-1, descending=True).values

    def halves(self, values):
        """The first and the second half of the rows."""
        half = len(values) // 2
        return values[:half], values[half : 2 * half]

    def exp(self, values):
        """Exponential of each entry."""
        return values.exp()

    def log(self, values):
        """Natural logarithm of each entry."""
        return values.log()

    def relu(self, values):
        """Each entry, or 0 where it is negative."""
        return torch.relu(values)

    def softplus(self, values):
        """log(1 + exp(v)) of each entry v."""
        return torch.nn.functional.softplus(values)

    def matmul(self, left, right):
        """Matrix product."""
        return left @ right

    def transpose(self, values):
        """[m, n] of [n, m]."""
        return values.t()

    def beside(self, left, right):
        """Both side by side along the last axis."""
        return torch.cat([left, right.to(left.dtype)], dim=-1)

    def constant(self, values):
        """The same, through which no gradient flows."""
        return values.detach()

    def minimum(self, values, limit):
        """The smaller one of each entry and a number."""
        return values.clamp(max=limit)

    def where(self, condition, then, otherwise):
        """Entries of the one or the other."""
        return torch.where(condition, then, otherwise)

    def sum(self, values):
        """Sum over the last axis."""
        return values.sum(dim=-1)

    def mean(self, values):
        """Mean over all entries."""
        return values.mean()

    def mean_or_zero(self, values):
        """Mean over all entries, 0 where there are none."""
        return values.sum() / max(1, values.numel())


def two_class(logits):
    """Logits [batch, classes]; a single logit z (sigmoid output) becomes the pair (0, z)."""
    return torch.cat([torch.zeros_like(logits), logits], dim=-1) if logits.shape[-1] == 1 else logits
