"""The grammar of gates: `tpr@0.1%fpr > 0.02` says when a release fails.

    metric [@ N% fpr] [[canaries]] op number [for attack=NAME | for artifact=NAME ...] [at ci | at point]

with op one of `>`, `>=`, `<`, `<=`. Names with spaces stand in double quotes. `tpr@0.1%fpr[canaries] > 0.1`
is about rows that were made to be remembered; without the word, or with `[population]`, a gate is about the
rows of the data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from edgeprivacy.errors import UsageError, did_you_mean

GateOn = Literal["point", "ci"]
Operator = Literal[">", ">=", "<", "<="]
Rows = Literal["population", "canaries"]

LEAKAGE = {"tpr": (0.0, 1.0), "auc": (0.0, 1.0), "balanced_accuracy": (0.0, 1.0), "advantage": (-1.0, 1.0)}
"""Metrics of an attack, with their range. `advantage` is 2 x balanced accuracy - 1, the TPR - FPR there."""
FITNESS = {"accuracy": (0.0, 1.0), "accuracy_drop": (-1.0, 1.0), "parity.max_abs": (0.0, 1.0)}
"""Metrics of an artifact. `accuracy_drop` is the original's test accuracy minus the artifact's."""
BOUNDS = {"one_run_epsilon": (0.0, math.inf)}
"""Bounds of an artifact: the epsilon that one training run shows, where coins drew the rows."""
OF_ARTIFACTS = FITNESS | BOUNDS
"""What belongs to an artifact as a whole: no attack and no rows narrow it."""
RANGES = LEAKAGE | OF_ARTIFACTS
_FORM = "metric [@ N% fpr] [[canaries]] op number [for attack=NAME] [for artifact=NAME] [at ci]"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r'\s*(?:(attack|artifact)\s*=\s*(?:"([^"]+)"|([^\s"]+))|(\S+))')


@dataclass(frozen=True)
class Gate:
    """One parsed expression.

    Attributes:
        fpr: Limit of the false-positive rate between 0 and 1 for `tpr`, else None.
        threshold: The number compared with.
        attacks: Names the gate is restricted to; empty for all.
        artifacts: Names the gate is restricted to; empty for all candidates.
        on: "point" or "ci" if the expression says so, else None.
        rows: Whose leakage it is about: "population", or "canaries".
    """

    expr: str
    metric: str
    op: Operator
    threshold: float
    fpr: float | None = None
    attacks: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    on: GateOn | None = None
    rows: Rows = "population"

    @property
    def subject(self) -> str:
        """The metric in canonical form: `tpr@0.1%fpr`, `auc[canaries]`."""
        limit = "" if self.fpr is None else f"@{self.fpr * 100:.12g}%fpr"
        return f"{self.metric}{limit}{'[canaries]' if self.rows == 'canaries' else ''}"

    @property
    def canonical(self) -> str:
        """The expression in one fixed spelling; `parse_gate` reads it back to the same gate."""
        parts = [f"{self.subject} {self.op} {self.threshold:.12g}"]
        for key, names in (("attack", self.attacks), ("artifact", self.artifacts)):
            parts += [f'for {key}="{name}"' if " " in name else f"for {key}={name}" for name in names]
        return " ".join([*parts, *([f"at {self.on}"] if self.on else [])])

    def fails(self, value: float) -> bool:
        """Whether a value stands on the failing side."""
        return {
            ">": value > self.threshold,
            ">=": value >= self.threshold,
            "<": value < self.threshold,
            "<=": value <= self.threshold,
        }[self.op]


def parse_gate(
    text: str, known_attacks: Collection[str] | None = None, *, check_attacks: bool = True
) -> Gate:
    """Read an expression before any work is done.

    Args:
        text: `tpr@0.1%fpr>0.02`, `auc > 0.6 for attack=lira.online at ci`, `auc[canaries]>0.7`, ...
        known_attacks: Names that `for attack=` may use; None takes all registered attacks.
        check_attacks: False reads the gates of an audit made elsewhere, with attacks not known here.

    Raises:
        UsageError: Unknown metric, rows, attack or operator, an FPR without `%`, a number out of range, or a
            gate that can never fail.
    """
    head = re.match(r"\s*([^\s@<>=!\[]*)\s*(@[^<>=!\[]*)?(\[[^<>=!]*)?", text)
    assert head is not None
    metric, at = head.group(1).lower(), head.group(2)
    if metric not in RANGES:
        raise UsageError(
            f"gate '{text}': unknown metric '{head.group(1)}'",
            allowed=", ".join(RANGES).replace("tpr", "tpr@N%fpr"),
            hint=did_you_mean(metric, RANGES) or f"the form is: {_FORM}",
        )
    fpr, rows = _fpr(text, metric, at), _rows(text, metric, head.group(3))
    rest = text[head.end() :]
    sign = re.match(r"[<>=!]+", rest)
    if sign is None:
        raise UsageError(
            f"gate '{text}': a comparison is missing",
            allowed=_FORM,
            hint="quote the expression, or the shell takes > for a redirection",
        )
    if sign.group() not in (">", ">=", "<", "<="):
        raise UsageError(f"gate '{text}': unknown operator", got=sign.group(), allowed=">, >=, <, <=")
    word, *_ = [*rest[sign.end() :].split(maxsplit=1), ""]
    low, high = RANGES[metric]
    if not _NUMBER.fullmatch(word) or not low <= float(word) <= high:
        raise UsageError(
            f"gate '{text}': bad number",
            got=word or "nothing",
            allowed=f"{low:g} to {high:g}",
            hint="a share, not a percentage: 2 % is written 0.02" if metric in LEAKAGE else None,
        )
    gate = Gate(text.strip(), metric, cast(Operator, sign.group()), float(word), fpr, rows=rows)
    if not gate.fails(low) and not gate.fails(high):
        raise UsageError(
            f"gate '{text}' can never fail", allowed=f"{metric} lies between {low:g} and {high:g}"
        )
    tail = rest[sign.end() :].lstrip()[len(word) :]
    gate = _tail(gate, tail)
    if check_attacks:
        _known(gate, known_attacks)
    return gate


def refuse_bounds(gates: Iterable[Gate], why: str | None = None, hint: str | None = None) -> None:
    """Raise a UsageError, before anything is measured, where a gate asks for a bound that cannot be had.

    Args:
        why: The reason; None says that the split came with the data.
    """
    for gate in gates:
        if gate.metric in BOUNDS:
            from edgeprivacy.metrics.epsilon import REFUSED  # imported late: it brings all of statistics

            raise UsageError(
                f"gate '{gate.expr}': there is no bound from one run here",
                got=why or REFUSED["given_split"],
                hint=hint or "compress with --split half draws the training rows by coins",
            )


def _fpr(text: str, metric: str, at: str | None) -> float | None:
    if (at is None) != (metric != "tpr"):
        what = "needs the false-positive rate" if at is None else "takes no false-positive rate"
        allowed = "tpr@N%fpr, as in tpr@0.1%fpr>0.02" if at is None else f"{metric} op number"
        raise UsageError(f"gate '{text}': {metric} {what}", allowed=allowed)
    if at is None:
        return None
    limit = re.fullmatch(r"@\s*(\S*?)\s*(%?)\s*fpr\s*", at, re.IGNORECASE)
    if limit is None or not limit.group(2) or not _NUMBER.fullmatch(limit.group(1)):
        raise UsageError(
            f"gate '{text}': the false-positive rate is written in percent, with the sign",
            got=at.strip(),
            allowed="@ N% fpr, as in tpr@0.1%fpr",
        )
    percent = float(limit.group(1))
    if not 0 < percent < 100:
        raise UsageError(
            f"gate '{text}': false-positive rate out of range", got=f"{percent:g}%", allowed="0% to 100%"
        )
    return float(f"{percent / 100:.12g}")


def _rows(text: str, metric: str, word: str | None) -> Rows:
    if word is None:
        return "population"
    name = word.strip().removeprefix("[").removesuffix("]").strip().lower()
    if not word.rstrip().endswith("]") or name not in get_args(Rows):
        raise UsageError(
            f"gate '{text}': there are no such rows",
            got=word.strip(),
            allowed=", ".join(f"[{rows}]" for rows in get_args(Rows)),
            hint=did_you_mean(name, get_args(Rows)),
        )
    if metric in OF_ARTIFACTS:
        raise UsageError(f"gate '{text}': {metric} belongs to an artifact, not to rows")
    return cast(Rows, name)


def _tail(gate: Gate, tail: str) -> Gate:
    expected: tuple[str, ...] = ("for", "at")
    for match in _WORD.finditer(tail.rstrip()):
        key, quoted, plain, word = match.groups()
        if key and "name" in expected:
            name = quoted or plain
            if key == "attack":
                gate = replace(gate, attacks=(*gate.attacks, name))
            else:
                gate = replace(gate, artifacts=(*gate.artifacts, name))
            expected = ("for", "at", "name")
        elif word == "for" and "for" in expected:
            expected = ("name",)
        elif word == "at" and "at" in expected:
            expected = ("mode",)
        elif word in ("ci", "point") and "mode" in expected:
            gate, expected = replace(gate, on=cast(GateOn, word)), ()
        else:
            raise UsageError(f"gate '{gate.expr}': cannot read '{match.group().strip()}'", allowed=_FORM)
    if expected in (("name",), ("mode",)):
        raise UsageError(f"gate '{gate.expr}' ends too early", allowed=_FORM)
    if gate.attacks and gate.metric in OF_ARTIFACTS:
        raise UsageError(f"gate '{gate.expr}': {gate.metric} belongs to an artifact, not to an attack")
    return gate


def _known(gate: Gate, known_attacks: Collection[str] | None) -> None:
    if gate.attacks and known_attacks is None:
        from edgeprivacy.attacks.base import attacks

        known_attacks = attacks.names()
    for name in gate.attacks:
        if name not in (known_attacks or ()):
            raise UsageError(
                f"gate '{gate.expr}': unknown attack '{name}'",
                allowed=", ".join(known_attacks or ()),
                hint=did_you_mean(name, known_attacks or ()),
            )
