"""Several defenses at once, "wemem:swmr+relaxloss": each governs another side of the training.

A defense governs what its class overrides. Two that govern the same are refused: neither could do what its
paper says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from edgeprivacy.compression.grid import LowBits
from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.base import Defense, Pass, TrainingRows, make_defense
from edgeprivacy.defenses.choosing import Candidates
from edgeprivacy.defenses.cwrf import Rewinding
from edgeprivacy.defenses.dpsgd import PrivateSteps
from edgeprivacy.defenses.inference_network import InferenceNetwork
from edgeprivacy.defenses.mia_pruning import Admm
from edgeprivacy.defenses.preparing import Preparation
from edgeprivacy.errors import RecipeError, did_you_mean

JOINT = "+"
SIDES: Mapping[str, tuple[str, ...]] = {
    "which rows an epoch sees, and when a phase ends": ("epoch", "private"),
    "the loss of a batch": ("loss", "columns", "patience", "mixing", "private", "opponent", "wants_others"),
    "how much dropout drops": ("dropout",),
    "how weights become sparse": ("admm",),
    "which weights go back to where they began": ("rewinding",),
    "which grid weights lie on": ("low_bits",),
}
"""What can be governed, and the members of `Defense` that govern it. Steps that hide their rows draw the rows
and want the plain loss of each."""


def governed(defense: Defense) -> list[str]:
    """The sides of `SIDES` that a defense governs; empty for one that changes nothing."""
    return [
        side
        for side, members in SIDES.items()
        if any(getattr(type(defense), member) is not getattr(Defense, member) for member in members)
    ]


def parts_of(defense: Defense) -> tuple[Defense, ...]:
    """What a composition is made of; any other defense by itself."""
    return defense.parts if isinstance(defense, Composed) else (defense,)


@dataclass(frozen=True)
class Composed(Defense):
    """Defenses of which each governs another side; what none of them governs stays plain.

    Attributes:
        parts: In the order of the name.
    """

    name: ClassVar[str] = JOINT
    title: ClassVar[str] = "several defenses, each governing another side of the training"
    paper: ClassVar[str] = "-"

    parts: tuple[Defense, ...] = ()

    def __post_init__(self) -> None:
        # What a single defense says of its class, a composition says of its parts.
        for key, value in (
            ("name", JOINT.join(part.name for part in self.parts)),
            ("title", "; ".join(part.title for part in self.parts)),
            ("paper", "; ".join(dict.fromkeys(part.paper for part in self.parts))),
            ("version", JOINT.join(part.version for part in self.parts)),
            ("role", "control" if any(part.role == "control" for part in self.parts) else "candidate"),
            ("search", {f"{p.name}.{key}": span for p in self.parts for key, span in p.search.items()}),
        ):
            object.__setattr__(self, key, value)

    def check(self, rows: TrainingRows) -> None:
        """Every part's own check."""
        for part in self.parts:
            part.check(rows)

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """All parts' notes."""
        return tuple(note for part in self.parts for note in part.notes(rows))

    def for_original(self) -> Defense | None:
        """What those parts that train the original make together."""
        parts = tuple(by for part in self.parts if (by := part.for_original()) is not None)
        if len(parts) < 2:
            return parts[0] if parts else None
        return Composed(parts)

    def candidates(self) -> Candidates | None:
        """Those of the part that has some, each among the other parts."""
        for position, part in enumerate(self.parts):
            found = part.candidates()
            if found is not None:
                before, after = self.parts[:position], self.parts[position + 1 :]
                tried = tuple(Composed((*before, each, *after)) for each in found.defenses)
                return replace(found, defenses=tried)
        return None

    @property
    def settings_told(self) -> str:
        """Those of the part that has candidates."""
        return next((part.settings_told for part in self.parts if part.settings_told), "")

    def planned(self, steps: int, rate: float) -> Defense:
        """Every part's own plan."""
        return Composed(tuple(part.planned(steps, rate) for part in self.parts))

    def preparations(self) -> tuple[Preparation, ...]:
        """What any part wants, once."""
        return tuple({made.name: made for part in self.parts for made in part.preparations()}.values())

    @property
    def dropout(self) -> float | None:
        """That of the part that governs it."""
        return self._governor("dropout").dropout

    @property
    def mixing(self) -> float:
        """That of the part that governs the loss."""
        return self._governor("loss").mixing

    def opponent(self) -> InferenceNetwork | None:
        """That of the part that governs the loss."""
        return self._governor("opponent").opponent()

    @property
    def wants_others(self) -> bool:
        """Whether the part that governs the loss does."""
        return self._governor("wants_others").wants_others

    def admm(self) -> Admm | None:
        """That of the part that prunes."""
        return self._governor("admm").admm()

    def rewinding(self) -> Rewinding | None:
        """That of the part that rewinds."""
        return self._governor("rewinding").rewinding()

    def low_bits(self) -> LowBits | None:
        """That of the part that rounds."""
        return self._governor("low_bits").low_bits()

    def private(self) -> PrivateSteps | None:
        """That of the part that governs both the rows and the loss."""
        return self._governor("private").private()

    def patience(self, given: int) -> int:
        """That of the part that governs the loss."""
        return self._governor("loss").patience(given)

    def columns(self, rows: TrainingRows) -> dict[str, Any]:
        """Those of the part that governs the loss."""
        return self._governor("loss").columns(rows)

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """Those of the part that governs the rows."""
        return self._governor("epoch").epoch(rows, epoch, epochs, weight_decay, rng)

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """That of the part that governs the loss."""
        return self._governor("loss").loss(ops, batch)

    @property
    def rows_seen(self) -> str:
        """Those of the part that governs them."""
        return self._governor("epoch").rows_seen

    @property
    def needs_classes(self) -> bool:
        """Whether that of any part is."""
        return any(part.needs_classes for part in self.parts)

    def _governor(self, member: str) -> Defense:
        side = next(side for side, members in SIDES.items() if member in members)
        return next((part for part in self.parts if side in governed(part)), self.parts[0])


def compose(name: str, settings: Mapping[str, Any] | None = None) -> Composed:
    """A composition from its name.

    Args:
        name: Two or more names with a plus between them.
        settings: "relaxloss.alpha" is a part's setting; "alpha" alone will do where one part has it.

    Raises:
        UsageError: Unknown name.
        RecipeError: Unknown or ambiguous setting, a value out of range, or parts that do not go together.
    """
    names = name.split(JOINT)
    if not all(names):
        raise RecipeError(
            f"defense '{name}' has a plus with nothing on one side", allowed="names with a plus between them"
        )
    if len(set(names)) != len(names):
        raise RecipeError(f"defense '{name}' names a part twice")
    plain = {part: make_defense(part) for part in names}
    _check_sides(name, plain)
    chosen = _settings_by_part(name, plain, settings or {})
    return Composed(tuple(make_defense(part, chosen[part]) for part in names))


def whole_names(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A defense's settings, those of a composition with the part's name before each: {"alpha": 1.0} of
    "wemem+relaxloss" to {"relaxloss.alpha": 1.0}.

    Raises:
        RecipeError: As `compose`.
    """
    if JOINT not in name:
        return dict(settings)
    plain = {part: make_defense(part) for part in name.split(JOINT)}
    by_part = _settings_by_part(name, plain, settings)
    return {f"{part}.{key}": value for part, chosen in by_part.items() for key, value in chosen.items()}


def _check_sides(name: str, parts: Mapping[str, Defense]) -> None:
    by_side: dict[str, str] = {}
    for part, defense in parts.items():
        sides = governed(defense)
        if not sides:
            raise RecipeError(
                f"defense '{name}': '{part}' governs nothing, so there is nothing to compose",
                hint=f"leave '{part}' out, or set it beside the defense with compare",
            )
        for side in sides:
            if side in by_side:
                raise RecipeError(
                    f"defense '{name}': '{by_side[side]}' and '{part}' do not go together",
                    got=f"both govern {side}",
                    allowed="parts that each govern another side of the training",
                )
            by_side[side] = part


def _settings_by_part(
    name: str, parts: Mapping[str, Defense], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    owners: dict[str, list[str]] = {}
    for part, defense in parts.items():
        for field in fields(defense):
            owners.setdefault(field.name, []).append(part)
            owners[f"{part}.{field.name}"] = [part]
    chosen: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for key, value in settings.items():
        of = owners.get(key, [])
        if len(of) != 1:
            raise RecipeError(
                f"defense '{name}' has no setting '{key}'"
                if not of
                else f"'{key}' is a setting of two parts",
                allowed=", ".join(owner for owner in owners if "." in owner),
                hint=did_you_mean(key, owners) if not of else f"say which: {of[0]}.{key}",
            )
        setting = key.removeprefix(f"{of[0]}.")
        if setting in chosen[of[0]]:
            raise RecipeError(f"defense '{name}': '{key}' is given twice")
        chosen[of[0]][setting] = value
    return chosen
