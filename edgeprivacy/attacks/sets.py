"""Attacks under one name: `--attacks wemem10,lira.online`.

    quick     no shadow needed, no classifier to train, one version, one query: what a first look takes
    release   every attack that asks a file once a row, but for the published sizes
    all       every attack, those that ask the file again included, but for the published sizes
    wemem10   the ten attacks of WeMem's evaluation, at thresholds chosen on shadows; which attack stands
              for which is told below
    compleak  CompLeak's attacks on one, two and several versions, but for the published sizes

The published sizes (`.faithful`) take minutes a fit, differ from their namesakes in nothing else, and are run
by name alone.

WeMem's ten (defenses of pruned networks, Shang et al., NDSS 2025; eight are in its released code, LiRA and
BlindMI are inferred): Conf `confidence`, Entr `entropy`, Mentr `modified-entropy`, Hconf `confidence.global`,
NN `nn.unlabelled`, Top3-NN `top3-nn`, Cl-NN `nn`, SAMIA `samia`, LiRA `lira.online`, BlindMI `blindmi`.
Hconf is the released code's, p_y under one threshold for all classes; the paper's words, "highest
confidence", would be `salem3`. The networks have one hidden layer of 64 units instead of three larger ones,
`samia` has a network in place of the transformer, and `blindmi` needs outputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeprivacy.attacks.base import Attack, attacks
from edgeprivacy.errors import UsageError, did_you_mean

WEMEM10 = (
    *("confidence", "entropy", "modified-entropy", "confidence.global"),
    *("nn.unlabelled", "top3-nn", "nn", "samia", "lira.online", "blindmi"),
)


def _quick(attack: Attack) -> bool:
    needs = attack.needs
    return needs.shadows == 0 and needs.versions == 1 and not attack.fit_once_per_half and attack.queries == 1


def _published(attack: Attack) -> bool:
    return attack.name.endswith(".faithful")


_SETS: dict[str, tuple[str, Callable[[Attack], bool]]] = {
    "quick": ("no shadow needed, nothing to train, one query", _quick),
    "release": (
        "all that ask a file once a row, but for the published sizes",
        lambda attack: attack.queries == 1 and not _published(attack),
    ),
    "all": ("every attack but for the published sizes", lambda attack: not _published(attack)),
    "wemem10": ("the ten attacks of WeMem's evaluation", lambda attack: attack.name in WEMEM10),
    "compleak": (
        "CompLeak's attacks on one, two and several versions",
        lambda attack: attack.name.startswith("compleak.") and not _published(attack),
    ),
}


def set_names() -> tuple[str, ...]:
    """Names of all sets."""
    return tuple(_SETS)


def describe_set(name: str) -> str:
    """What a set holds, in a few words."""
    return _SETS[name][0]


def members(name: str) -> tuple[str, ...]:
    """The attacks of a set, in the order of the registry (`wemem10`: of the paper's table)."""
    if name == "wemem10":
        return tuple(attack for attack in WEMEM10 if attack in attacks.names())
    wanted = _SETS[name][1]
    return tuple(attack for attack in attacks.names() if wanted(attacks[attack]))


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Attacks by name, sets replaced by what they hold, each once, in order.

    Raises:
        UsageError: Neither an attack nor a set, with the closest known name.
    """
    found: dict[str, None] = {}
    for name in names:
        if name in _SETS:
            found.update(dict.fromkeys(members(name)))
        elif name in attacks.names():
            found[name] = None
        else:
            known = [*attacks.names(), *_SETS]
            raise UsageError(
                f"unknown attack '{name}'",
                allowed=f"{', '.join(attacks.names())}; sets: {', '.join(_SETS)}",
                hint=did_you_mean(name, known),
            )
    return tuple(found)
