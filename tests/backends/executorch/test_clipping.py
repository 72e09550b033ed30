"""Sums of clipped gradients stay on the network's device; torch's device without values stands for a GPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra executorch")
pytestmark = pytest.mark.executorch


def test_nothing_is_made_on_another_device_than_the_networks() -> None:
    from edgeprivacy.backends.executorch.clipping import LinearClipping, clipped_one_by_one

    layers = [torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)]
    model = torch.nn.Sequential(*layers).to("meta")
    leaves, x = list(model.parameters()), torch.ones(4, 6, device="meta")
    found = LinearClipping(model, leaves).clipped(lambda: model(x).square().mean(), 4, 1.0)
    assert found is not None and [f.shape for f in found] == [leaf.shape for leaf in leaves]
    zeros = [torch.zeros_like(leaf) for leaf in leaves]

    def of_row(row: int) -> list[torch.Tensor]:
        return list(torch.autograd.grad(model(x[row : row + 1]).square().mean(), leaves))

    total = clipped_one_by_one(of_row, 4, zeros, 1.0)
    assert {each.device.type for each in (*found, *total)} == {"meta"}
