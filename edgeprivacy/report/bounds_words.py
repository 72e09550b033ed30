"""Bounds, records at risk, slices and who carries the leakage, in the words that all reports share."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.bounds_results import Bounds, OneRunBound, RecordRisk, SliceRow, Slices, Vulnerable
from edgeprivacy.report.words import Row, clean, limit_percent, percent, percent_interval, rows
from edgeprivacy.results import Audit

BOUNDS_MEAN = (
    "From one attack a file, chosen by a fixed order before anything was seen and not by what it found. A "
    "lower bound says that whatever was promised for the training, no smaller epsilon can be true of it; a "
    "bound of zero promises nothing."
)
CERTAIN = 0.99


@dataclass(frozen=True)
class BoundsRow:
    """One file; texts.

    Attributes:
        epsilon: The one-run bound, "ε ≥ 0.43", "nothing shown" or "not run".
        one_run: What the bound rests on, or why there is none, as a sentence.
        strength: The attack's best operating point, with what it means.
        certain_members: "12 of 646 members" with the risk `CERTAIN`, or a dash; certain_others: "0 of 648
            non-members", or nothing.
        risks: One sentence a limit, or why there are no risks.
        calibration: How far the risks can be believed, or None without risks.
        vulnerable: The share of the most vulnerable rows, short; `carried` as a sentence.
        slices: Those measured, the largest AUC first; `slices_told` says how many and how they hold together.
    """

    row: Row
    bounds: Bounds
    epsilon: str
    one_run: str
    strength: str
    certain_members: str
    certain_others: str
    risks: tuple[str, ...]
    calibration: str | None
    vulnerable: str
    carried: str
    slices: tuple[SliceRow, ...]
    slices_told: str

    @property
    def certain(self) -> str:
        """Both counts in one line."""
        return ", ".join(part for part in (self.certain_members, self.certain_others) if part)


def bounds_rows(audit: Audit) -> list[BoundsRow]:
    """Every file that bounds were measured for."""
    return [_row(row, row.artifact.bounds) for row in rows(audit) if row.artifact.bounds is not None]


def bounds_sentence(told: BoundsRow) -> str:
    """What a terminal shows of a file, after its name."""
    parts = [told.epsilon]
    if told.bounds.risk.not_run is None:
        parts.append(f"known with {limit_percent(CERTAIN)} certainty: {told.certain}")
    if told.bounds.vulnerable is not None and told.bounds.vulnerable.share is not None:
        parts.append(told.carried.rstrip("."))
    return f" by {clean(told.bounds.attack)}: {'; '.join(parts)}"


def slice_tpr(row: SliceRow) -> str:
    """The rate with its interval, or a dash where the slice is too small for it."""
    if row.tpr is None or row.tpr_ci is None:
        return "–"
    return f"{percent(row.tpr)} {percent_interval(row.tpr_ci)}"


def slice_p(row: SliceRow) -> str:
    """ "0.03", or "under 0.0001"."""
    return "under 0.0001" if row.p_value < 0.0001 else f"{row.p_value:.2g}"


def _row(row: Row, bounds: Bounds) -> BoundsRow:
    # Strength is judged on half of the rows, risks on all that the attack scored.
    scored = row.artifact.attack(bounds.attack)
    members, nonmembers = (0, 0) if scored is None else (scored.n_members, scored.n_nonmembers)
    counts = {limit: (inside, outside) for limit, inside, outside in bounds.risk.above}
    certain = counts.get(CERTAIN)
    slices, slices_told = _slices(bounds.slices)
    short, carried = _vulnerable(bounds.vulnerable)
    strength = bounds.strength
    return BoundsRow(
        row,
        bounds,
        _epsilon(bounds.one_run),
        _one_run(bounds.one_run),
        f"{strength.epsilon:.2f}, where {percent(strength.tpr)} of members and {percent(strength.fpr)} of "
        f"non-members are accused: {clean(strength.meaning)}",
        "–" if certain is None else f"{certain[0]:,} of {members:,} members",
        "" if certain is None else f"{certain[1]:,} of {nonmembers:,} non-members",
        _risks(bounds.risk, members, nonmembers),
        _calibration(bounds.risk),
        short,
        carried,
        slices,
        slices_told,
    )


def _epsilon(bound: OneRunBound) -> str:
    if bound.not_run is not None:
        return "no bound from one run"
    return f"ε ≥ {bound.epsilon:.2f}" if bound.epsilon > 0 else "ε ≥ 0 (nothing shown)"


def _one_run(bound: OneRunBound) -> str:
    if bound.not_run is not None:
        return f"not run: {clean(bound.not_run)}"
    return (
        f"{_epsilon(bound)} (μ ≥ {bound.mu:.2f} of Gaussian privacy) at {percent(bound.level)} confidence, "
        f"δ {bound.delta:g}: {bound.correct:,} of {bound.guesses:,} guessed coins were "
        f"right, of {bound.canaries:,} coins"
    )


def _risks(risk: RecordRisk, members: int, nonmembers: int) -> tuple[str, ...]:
    if risk.not_run is not None:
        return (f"not run: {clean(risk.not_run)}",)
    return tuple(
        f"risk {limit_percent(limit)} or more: {inside:,} of {members:,} members, {outside:,} of "
        f"{nonmembers:,} non-members"
        for limit, inside, outside in risk.above
    )


def _calibration(risk: RecordRisk) -> str | None:
    if risk.not_run is not None:
        return None
    how = "as the ratios say" if risk.calibration == "none" else f"set right on shadows ({risk.calibration})"
    return (
        f"{how}; {risk.outside} of {len(risk.bins)} bins lie outside the interval of their truth; mean "
        f"distance {percent(risk.expected_error)}, of a perfect predictor {percent(risk.error_by_chance)}"
    )


def _vulnerable(found: Vulnerable | None) -> tuple[str, str]:
    if found is None:
        return "–", "not measured."
    if found.share is None:
        return "–", f"not measured: {clean(found.not_run or 'nothing leaks')}."
    interval = "" if found.ci is None else f" {percent_interval(found.ci)}"
    short = f"{percent(found.share)}{interval}"
    return short, (
        f"the most vulnerable {percent(found.part)} of the rows carry {short} of the leakage "
        f"({found.models} models)."
    )


def _slices(found: Slices | None) -> tuple[tuple[SliceRow, ...], str]:
    if found is None:
        return (), "not measured"
    measured = sorted((row for row in found.rows if row.not_run is None), key=lambda row: -row.auc)
    refused = len(found.rows) - len(measured)
    small = f"; {refused} more are too small" if refused else ""
    leaking = sum(row.leaks for row in measured)
    return tuple(measured), (
        f"{found.measured} slices, {leaking} of them leak beyond chance; their intervals hold together at "
        f"{percent(found.level)} (Bonferroni), p is adjusted for all of them (Holm){small}"
    )
