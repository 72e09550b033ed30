"""Files of trained weights: a torch state dict or safetensors. Both are read without running code."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

from edgeprivacy.backends.executorch.frameworks import torch
from edgeprivacy.errors import ModelError

_ALLOWED = "FILE.pt (a state dict) or FILE.safetensors"
_SAVE = "save its weights alone: torch.save(model.state_dict(), 'weights.pt')"


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Weights by name.

    Raises:
        ModelError: Missing or damaged, or no state dict: a pickled model, a checkpoint, TorchScript.
    """
    if not path.is_file():
        raise ModelError(f"weights {path} do not exist", allowed=_ALLOWED)
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not isinstance(found, dict) or not found:
        raise ModelError(f"weights {path} are no state dict", got=type(found).__name__, hint=_SAVE)
    strange = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise ModelError(
            f"weights {path} hold more than a state dict",
            got=", ".join(strange[:5]),
            hint="save the entry that is the state dict as a file of its own",
        )
    return found


def _safetensors(path: Path):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"weights {path} cannot be read", got=_line(error), allowed=_ALLOWED) from None


def _pickled(path: Path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says "Weights only load failed" for a foreign file as well as for one that names classes.
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise ModelError(
                f"weights {path} hold a pickled object, which loading would run code for: refused", hint=_SAVE
            ) from None
        raise ModelError(f"weights {path} cannot be read", got=_reason(error), allowed=_ALLOWED) from None
    except Exception as error:
        if "TorchScript" in str(error):
            raise ModelError(f"weights {path} hold a TorchScript model: refused", hint=_SAVE) from None
        raise ModelError(f"weights {path} cannot be read", got=_line(error), allowed=_ALLOWED) from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "WeightsUnpickler error" in line]
    return lines[0][:300] if lines else "it is no file of torch"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
