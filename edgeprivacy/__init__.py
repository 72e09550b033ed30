"""edgeprivacy: compress models for phones without betraying their training data, and attack what ships.

    import edgeprivacy as ep

    audit = ep.compress(ep.Recipe.build({"defense": "wemem"}))
    audit = ep.audit("model.tflite", "members.npz", "nonmembers.npz", fail_if=["tpr@1%fpr>0.05"])
    results = ep.attack(probabilities, labels, members)

Names are imported on first use: `import edgeprivacy` alone loads no framework and none of its own rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprivacy.attacking import attack
    from edgeprivacy.auditing import audit
    from edgeprivacy.compressing import compress
    from edgeprivacy.confidences import Confidences
    from edgeprivacy.data.dataset import Dataset
    from edgeprivacy.errors import EdgePrivacyError
    from edgeprivacy.recipe import Recipe, Run
    from edgeprivacy.results import AttackResult, Audit

__version__ = "0.1.0"

_HOMES = {
    "AttackResult": "results",
    "Audit": "results",
    "Confidences": "confidences",
    "Dataset": "data.dataset",
    "EdgePrivacyError": "errors",
    "Recipe": "recipe",
    "Run": "recipe",
    "attack": "attacking",
    "audit": "auditing",
    "compress": "compressing",
}

__all__ = [
    "AttackResult",
    "Audit",
    "Confidences",
    "Dataset",
    "EdgePrivacyError",
    "Recipe",
    "Run",
    "__version__",
    "attack",
    "audit",
    "compress",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeprivacy' has no attribute '{name}'")
    found = getattr(import_module(f"edgeprivacy.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
