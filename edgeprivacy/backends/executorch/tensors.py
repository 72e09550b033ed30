"""Arrays to a module's tensors and back, batches of rows, and the state of random numbers."""

from __future__ import annotations

import numpy as np

from edgeprivacy.backends.base import Weights
from edgeprivacy.backends.executorch.frameworks import DEVICE, torch


def state_of(model: torch.nn.Module) -> Weights:
    """A copy of all parameters and buffers, in the order of `state_dict`."""
    # Cloned, because a tensor that numpy has seen can no longer grow, and the ranges of observers do.
    return [
        np.ascontiguousarray(value.detach().cpu().clone().numpy()).reshape(value.shape)
        for value in model.state_dict().values()
    ]


@torch.no_grad()
def set_state(model: torch.nn.Module, weights: Weights) -> None:
    """Set all parameters and buffers in place. Buffers of observers take the shape of what they saw."""
    for value, array in zip(model.state_dict(keep_vars=True).values(), weights, strict=True):
        given = torch.from_numpy(np.ascontiguousarray(array))
        # A scalar comes out of ascontiguousarray as one row.
        given = given.reshape(np.shape(array))
        if value.shape != given.shape:
            value.resize_(given.shape)
        value.copy_(given)


def batch_sizes(rows: int, batch: int, normed: bool) -> list[int]:
    """Sizes of the batches: the last is what is left. BatchNorm knows no variance of a single row, so one
    that would stand alone is joined by one from the batch before."""
    sizes = [batch] * (rows // batch) + [rows % batch] * (rows % batch > 0)
    if normed and sizes[-1:] == [1] and len(sizes) > 1 and batch > 2:
        sizes[-2:] = [batch - 1, 2]
    return sizes


def as_rows(x: np.ndarray) -> torch.Tensor:
    """As stored: bytes stay bytes until a batch needs them."""
    kept = x if x.dtype == np.uint8 else np.asarray(x, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept)).to(DEVICE)


def random_state(seed: int) -> torch.Tensor:
    """A state of torch's random numbers."""
    return torch.Generator(DEVICE).manual_seed(seed).get_state()


def get_random_state() -> torch.Tensor:
    """Where torch's random numbers are now."""
    return torch.cuda.get_rng_state(DEVICE) if DEVICE.type == "cuda" else torch.get_rng_state()


def set_random_state(state: torch.Tensor) -> None:
    """Go on from there."""
    if DEVICE.type == "cuda":
        torch.cuda.set_rng_state(state, DEVICE)
    else:
        torch.set_rng_state(state)
