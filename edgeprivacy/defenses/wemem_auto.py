"""WeMem with settings chosen on validation rows and a release apart.

After the automatic setting adjustment of Shang et al., WeMem, NDSS 2025 (RSW-Auto, SWMR-Auto), of which the
procedure could not be read: candidates and rule are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np

from edgeprivacy.defenses.base import Defense, Pass, TrainingRows, defenses
from edgeprivacy.defenses.choosing import Candidates
from edgeprivacy.defenses.memorability import MEMORABILITY
from edgeprivacy.defenses.preparing import Preparation
from edgeprivacy.defenses.ranges import Searchable, check_number
from edgeprivacy.defenses.wemem import ORDERS, WindowedRegularization, Windows, window_told

WINDOWS = (2 / 9, 4 / 9)
STEPS = (1 / 45, 2 / 45)
RISKY = (0.1, 0.2)


@dataclass(frozen=True)
class AutomaticWeMem(Defense):
    """RSW or SWMR: a release apart, of half of the pool by a coin of its own, is first compressed under each
    of twelve settings, and target and shadows train under the least leaking one among those that lose at
    most `max_accuracy_loss` on validation rows; the report says which. With `order` nothing is searched.

    Windows and steps are shares of a class: RSW in both orders with windows of 2/9 and 4/9 and steps of 1/45
    and 2/45, SWMR in both orders with the top 10 or 20 % taken for risky.

    Attributes:
        max_accuracy_loss: Share of validation rows, 0 to 1.
        order: As RSW's; None searches.
        window_share, step_share: Of each class's rows.
        top_share: Share of the rows that are risky, as SWMR's; 0 is RSW.
        weight_decay_risky: As SWMR's.
    """

    name: ClassVar[str] = "wemem:auto"
    title: ClassVar[str] = "RSW or SWMR with settings found within an accuracy budget"
    paper: ClassVar[str] = "after Shang et al., WeMem, NDSS 2025; the search is ours"
    search: ClassVar[Mapping[str, Searchable]] = {}

    max_accuracy_loss: float = 0.02
    order: str | None = None
    window_share: float = WINDOWS[0]
    step_share: float = STEPS[0]
    top_share: float = 0.0
    weight_decay_risky: float = 0.1

    def __post_init__(self) -> None:
        check_number("max_accuracy_loss", self.max_accuracy_loss, 0, 1)
        if self.order is not None and self.order not in ORDERS[:2]:
            raise ValueError(f"order must be one of {', '.join(ORDERS[:2])}, got {self.order!r}")
        for name in ("window_share", "step_share"):
            check_number(name, getattr(self, name), 0, 1, open_low=True)
        check_number("top_share", self.top_share, 0, 0.99)
        check_number("weight_decay_risky", self.weight_decay_risky, 0)

    def candidates(self) -> Candidates | None:
        """See above."""
        if self.order is not None:
            return None
        # What a setting makes does not depend on the budget that it was chosen within.
        plain = replace(self, max_accuracy_loss=AutomaticWeMem.max_accuracy_loss)
        tried = [
            replace(plain, order=order, window_share=window, step_share=step)
            for order, window, step in product(ORDERS[:2], WINDOWS, STEPS)
        ]
        tried += [replace(plain, order=order, top_share=top) for order, top in product(ORDERS[:2], RISKY)]
        return Candidates(tuple(tried), self.max_accuracy_loss)

    @property
    def settings_told(self) -> str:
        """In a few words."""
        window = f"order {self.order}, window_share {self.window_share:.3g}, step_share {self.step_share:.3g}"
        return f"{window}, top_share {self.top_share:g}" if self.top_share else window

    def preparations(self) -> tuple[Preparation, ...]:
        """Memorability scores."""
        return (MEMORABILITY,)

    @property
    def windows(self) -> Windows:
        """The window mechanics."""
        if self.order is None:
            raise ValueError("settings are chosen before anything trains")
        order = "low-to-high" if self.order == ORDERS[0] else "high-to-low"
        return Windows(order, None, None, self.window_share, self.step_share)  # type: ignore[arg-type]

    @property
    def rows_seen(self) -> str:
        """Those of the window; of the widest where it is still to be chosen."""
        if self.order is not None:
            return window_told(None, self.window_share)
        return f"then at most {window_told(None, max(WINDOWS))}"

    def epoch(
        self, rows: TrainingRows, epoch: int, epochs: int, weight_decay: float, rng: np.random.Generator
    ) -> list[Pass]:
        """Those of RSW, or of SWMR."""
        selected = self.windows.rows(rows, epoch, rng)
        if not self.top_share:
            return [Pass(selected, weight_decay)] if len(selected) else []
        return self._regularization.split(rows, selected, weight_decay)

    @property
    def _regularization(self) -> WindowedRegularization:
        return WindowedRegularization(self.weight_decay_risky, top_share=self.top_share)


defenses.register("wemem:auto")(AutomaticWeMem)
