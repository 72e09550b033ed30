"""torch, imported once, quietly, with one thread (see `backends.table.THREADS`), and the device it computes
on: a GPU where there is one."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import warnings
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read by cuBLAS when it starts; without it matrix products on a GPU may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
warnings.filterwarnings("ignore", module="torch|torchao|executorch|torch_pruning")
# torchao warns of each GPU kernel that it cannot load, and of an enumeration of its own.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from edgeprivacy.backends.table import THREADS  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where networks train and answer. Files are made and run on the CPU."""


def use_own_threads() -> None:
    """One thread, also after a user's code asked for more."""
    torch.set_num_threads(THREADS)


use_own_threads()
if DEVICE.type == "cuda":
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global random numbers (torch, numpy, Python) from a seed inside, as they were before outside."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [DEVICE] if DEVICE.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


__all__ = ["DEVICE", "seeded", "torch", "use_own_threads"]
