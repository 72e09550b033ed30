"""The array operations that defenses are written against, in torch."""

from __future__ import annotations

from edgeprivacy.backends.executorch.frameworks import torch


class TorchOps:
    """Implements `edgeprivacy.defenses.ArrayOps`."""

    def cross_entropy(self, logits, labels):
        """Per-row cross-entropy."""
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    def mean(self, values):
        """Mean over all entries."""
        return values.mean()


def two_class(logits):
    """Logits [batch, classes]; a single logit z (sigmoid output) becomes the pair (0, z)."""
    return torch.cat([torch.zeros_like(logits), logits], dim=-1) if logits.shape[-1] == 1 else logits
