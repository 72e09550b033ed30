"""What every defense is: a small frozen object whose fields are its settings.

The mathematics of a defense stands here once, in numpy (which rows an epoch sees, what is prepared of them)
and against a small namespace of array operations (`ArrayOps`) that each backend provides (a batch's loss).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.defenses.array_ops import ArrayOps, Batch
from edgeprivacy.defenses.preparing import Preparation
from edgeprivacy.defenses.ranges import Searchable
from edgeprivacy.errors import RecipeError, did_you_mean
from edgeprivacy.registry import Registry

if TYPE_CHECKING:
    from edgeprivacy.compression.grid import LowBits
    from edgeprivacy.defenses.choosing import Candidates
    from edgeprivacy.defenses.cwrf import Rewinding
    from edgeprivacy.defenses.dpsgd import PrivateSteps
    from edgeprivacy.defenses.inference_network import InferenceNetwork
    from edgeprivacy.defenses.mia_pruning import Admm

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class TrainingRows:
    """What a defense may know of a release: its own training rows, by position.

    Rows of several independent labels are rows of one class: windows and folds are over all of them, and
    sub-models answer [1 - p, p] with p what they think of a row as a whole (`multi_label.as_two_classes`).

    Attributes:
        labels: int64 [rows].
        classes: Number of classes.
        memorability: float64 [rows] in 0..1, or None for defenses that do not need it.
        soft_labels: float32 [rows, classes], each row a distribution, or None likewise.
        found: What preparations have to tell a reader of the report, in clauses.
    """

    labels: NDArray[np.int64]
    classes: int
    memorability: NDArray[np.float64] | None = None
    soft_labels: NDArray[np.float32] | None = None
    found: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: NDArray[np.int64], classes: int) -> TrainingRows:
        """Rows of these labels, [rows] or [rows, labels], before anything is prepared of them."""
        if labels.ndim == 2:
            return cls(np.ones(len(labels), dtype=np.int64), 2)
        return cls(labels, classes)

    def knowing(self, preparation: str, array: NDArray[Any], found: Sequence[str] = ()) -> TrainingRows:
        """The same rows, what a preparation of this name made of them, and what it has to tell."""
        prepared: dict[str, Any] = {preparation: array}
        return replace(self, found=(*self.found, *found), **prepared)


@dataclass(frozen=True)
class Pass:
    """One pass over rows within an epoch.

    Attributes:
        rows: Positions into the training rows; shuffled by the trainer.
        weight_decay: Coefficient of the coupled L2 term for these rows.
        optimizer: Name of the optimizer whose moments this pass uses; all share the parameters.
    """

    rows: Rows
    weight_decay: float
    optimizer: str = "general"


@dataclass(frozen=True)
class Defense:
    """Governs every training step after the original, and the original's where `for_original` says so.
    Subclasses override what they change.

    Attributes:
        dropout: Rate at which the network's dropout layers work while this trains it: 0 lets them rest, None
            leaves each its own.
        scores_weights: Whether |gradient * weight| is summed over its steps.
        search: Settings whose best value depends on the data, and what `tune` tries of each.
        mixing: Parameter of the beta distribution by which each batch's inputs are mixed with those of
            another row of it; 0 mixes nothing.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    role: ClassVar[str] = "candidate"
    scores_weights: ClassVar[bool] = False
    search: ClassVar[Mapping[str, Searchable]] = {}
    version: ClassVar[str] = "1"

    def for_original(self) -> Defense | None:
        """What trains the original of this arm; None leaves it the plain one, which other arms share."""
        return None

    def candidates(self) -> Candidates | None:
        """Settings that one is chosen from before the first release is made, with `settings_told` each; None
        for a defense whose settings stand."""
        return None

    @property
    def settings_told(self) -> str:
        """A candidate's settings in a few words."""
        return ""

    def planned(self, steps: int, rate: float) -> Defense:
        """The same, with what depends on how long a release trains.

        Args:
            steps: Most steps that all phases under this defense may take, the original's among them.
            rate: Expected share of the training rows in a batch.
        """
        del steps, rate
        return self

    def preparations(self) -> tuple[Preparation, ...]:
        """What must be known of the training rows before they are trained on."""
        return ()

    def check(self, rows: TrainingRows) -> None:
        """Raise RecipeError where settings and rows do not fit."""
        del rows

    def notes(self, rows: TrainingRows) -> tuple[str, ...]:
        """Sentences a reader of the report must see about what these settings do to these rows."""
        del rows
        return ()

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """The passes of one epoch of a phase (a pruning iteration, clustering, QAT), `epoch` from 0.

        An empty list ends the phase. `rng` is the same at the start of every epoch of a release's phase.
        """
        del epoch, epochs, rng
        return [Pass(np.arange(len(rows.labels)), weight_decay)]

    def admm(self) -> Admm | None:
        """How weights become sparse in the place of the recipe's schedule; None leaves it."""
        return None

    def rewinding(self) -> Rewinding | None:
        """Which weights go back to their initial values before a last fine-tuning; None leaves them all."""
        return None

    def low_bits(self) -> LowBits | None:
        """The grid that weights are trained on after pruning; None leaves them as they are."""
        return None

    def private(self) -> PrivateSteps | None:
        """How every step hides what a single row adds to it; None takes gradients as they are."""
        return None

    def patience(self, given: int) -> int:
        """How many epochs without improvement a phase bears, from what the recipe says."""
        return given

    def opponent(self) -> InferenceNetwork | None:
        """The network that is trained against the model, and whose guesses the loss sees; None for none."""
        return None

    def columns(self, rows: TrainingRows) -> dict[str, NDArray[np.float32]]:
        """Arrays [rows, ...] whose entries the loss wants to see of the rows of a batch."""
        del rows
        return {}

    def loss(self, ops: ArrayOps, batch: Batch) -> Any:
        """Scalar loss of a batch; weight decay is added by the trainer."""
        return ops.mean(ops.cross_entropy(batch.logits, batch.labels))

    @property
    def dropout(self) -> float | None:
        """See above."""
        return None

    @property
    def mixing(self) -> float:
        """See above."""
        return 0.0

    @property
    def wants_others(self) -> bool:
        """Whether as many reference rows come with each batch."""
        return self.opponent() is not None

    @property
    def wants_reference(self) -> bool:
        """Whether reference rows shape what it trains: beside batches, or in a probe of the weights."""
        return self.wants_others or self.rewinding() is not None

    @property
    def needs_classes(self) -> bool:
        """Whether its loss, or that of its probe, is about one true class among several, and so says nothing
        of rows that have several independent labels."""
        rewinding = self.rewinding()
        own = type(self).loss is not Defense.loss
        return own or (rewinding is not None and rewinding.probe().needs_classes)

    @property
    def needs(self) -> str:
        """In a few words, for listings."""
        return "; ".join(preparation.told for preparation in self.preparations()) or "nothing"

    @property
    def rows_seen(self) -> str:
        """How many rows an epoch sees, or how many epochs there are, where not all; for listings."""
        return ""

    @property
    def cost(self) -> str:
        """What makes its trainings longer or shorter than plain ones, in a few words, for listings; times of
        a step as measured in `docs/defenses.md`."""
        found = [preparation.cost for preparation in self.preparations() if preparation.cost]
        candidates, admm, rewinding = self.candidates(), self.admm(), self.rewinding()
        if candidates is not None:
            found.insert(0, f"{1 + len(candidates.defenses)} compressions apart before the first release")
        if self.private() is not None:
            found.append("per-row gradients: 2 to 3 x the time of a step, more where layers are not dense")
        if (opponent := self.opponent()) is not None:
            found.append(
                f"a second network's {opponent.steps} steps before each of the model, on batch and reference "
                "rows: 2 x the time of a step"
            )
        elif self.wants_others:
            found.append("as many reference rows beside each batch: 1.5 to 2 x the time of a step")
        if admm is not None:
            found.append(f"{admm.epochs} epochs and one fine-tuning in the place of the schedule")
        if rewinding is not None:
            found.append(f"weights scored (epochs: {rewinding.epochs}), and a further fine-tuning")
        if (low_bits := self.low_bits()) is not None:
            found.append(f"{low_bits.epochs} epochs more, at most")
        found += [self.rows_seen] if self.rows_seen else []
        return "; ".join(found) or "as no defense"


@dataclass(frozen=True)
class TrainingDefense(Defense):
    """A defense that is a way of training: published for models trained by it from the first step on.

    Attributes:
        original: Whether it trains the original too; if not, compression alone.
    """

    original: bool = True

    def for_original(self) -> Defense | None:
        """Itself, unless told otherwise."""
        return self if self.original else None


DefenseFactory = Callable[..., Defense]
defenses: Registry[DefenseFactory] = Registry(
    "defense",
    modules=tuple(
        f"edgeprivacy.defenses.{module}"
        for module in (
            "none",
            "wemem",
            "wemem_auto",
            "less_data",
            "relaxloss",
            "hamp",
            "ccl",
            "ppb",
            "smoothing",
            "early_stopping",
            "dropout",
            "selena",
            "distillation",
            "cwrf",
            "mia_pruning",
            "mixup",
            "dpsgd",
            "advreg",
            "defensive_quantization",
        )
    ),
)
"""All defenses by name: a class, or a function that fills in other defaults."""


def make_defense(name: str, settings: Mapping[str, Any] | None = None) -> Defense:
    """A defense from its name and settings; names with a plus between them are a composition (`composed`).

    Raises:
        UsageError: Unknown name.
        RecipeError: Unknown setting, a value out of range, or parts that do not go together.
    """
    if "+" in name:
        from edgeprivacy.defenses.composed import (
            compose,  # imported late: it makes its parts by this function
        )

        return compose(name, settings)
    factory = defenses[name]
    known = [field.name for field in fields(factory())]
    for key in settings or {}:
        if key not in known:
            raise RecipeError(
                f"defense '{name}' has no setting '{key}'",
                allowed=", ".join(known) or "none",
                hint=did_you_mean(key, known),
            )
    try:
        return factory(**(settings or {}))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"defense '{name}': {error}") from None
