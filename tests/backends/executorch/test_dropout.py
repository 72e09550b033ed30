"""Dropout from a stream of random bits drops what it says, keeps the mean, and repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprivacy.backends.executorch.dropout import RandomBits, ShortDropout, use_short_random_numbers


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_it_drops_its_rate_and_keeps_the_mean(rate: float) -> None:
    layer, x = ShortDropout(rate), torch.ones(1000, 1100)
    with ShortDropout.drawing_from(RandomBits(7)):
        y = layer(x)
    dropped = round(rate * 65536) / 65536
    kept = torch.unique(y).tolist()
    assert kept == pytest.approx([0, 1 / (1 - dropped)], abs=1e-6)
    # Six standard errors of a binomial share.
    assert abs(float((y == 0).float().mean()) - dropped) < 6 * np.sqrt(dropped * (1 - dropped) / x.numel())
    # No row and no column is treated otherwise.
    for axis in (0, 1):
        shares = (y == 0).float().mean(axis).numpy()
        assert np.abs(shares - dropped).max() < 6.5 * np.sqrt(dropped * (1 - dropped) / x.shape[axis])


def test_gradients_pass_where_values_do() -> None:
    layer, x = ShortDropout(0.3), torch.randn(50, 7, requires_grad=True)
    with ShortDropout.drawing_from(RandomBits(0)):
        y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), y.detach())


def test_the_same_seed_repeats_and_another_does_not() -> None:
    layer, x = ShortDropout(0.5), torch.ones(40, 41)

    def drawn(seed: int) -> torch.Tensor:
        with ShortDropout.drawing_from(RandomBits(seed)):
            return torch.stack([layer(x), layer(x)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(*drawn(1))


def test_outside_of_training_or_of_a_stream_it_is_torchs_own() -> None:
    layer, x = ShortDropout(0.5), torch.ones(300)
    with ShortDropout.drawing_from(RandomBits(0)):
        assert torch.equal(layer.eval()(x), x)
    layer.train()
    torch.manual_seed(3)
    mine = layer(x)
    torch.manual_seed(3)
    assert torch.equal(mine, nn.functional.dropout(x, 0.5))


def test_a_models_dropouts_are_replaced_and_its_state_is_not() -> None:
    class Own(nn.Dropout):
        pass

    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.2)), Own(0.3), nn.Dropout(0.1, True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    use_short_random_numbers(model)
    assert [type(part) for part in model] == [nn.Linear, nn.Sequential, Own, ShortDropout]
    assert type(model[1][0]) is ShortDropout and model[1][0].p == 0.2 and not model[1][0].training
    assert before.keys() == model.state_dict().keys()
