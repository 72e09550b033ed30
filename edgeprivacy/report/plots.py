"""Plots as SVG text for inline use: numbers and axes only, every name stands in the page around them.

Colours of text and lines are CSS variables with the light theme's colour as fallback, so that a page can
restyle them. Text stays text. The same audit gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from edgeprivacy.bounds_results import RiskBin
from edgeprivacy.report.words import Row
from edgeprivacy.results import AttackResult, Curve, Histogram

# Okabe & Ito's palette, safe for the common kinds of colour blindness; shapes tell roles apart as well.
INK, MUTED, LINE, MEMBER, OTHER = "#16202a", "#5b6770", "#d9dedc", "#0072b2", "#d55e00"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", MEMBER: "--member", OTHER: "--other"}
ROLE_COLOR = {"candidate": MEMBER, "control": OTHER, "original": MUTED}
ROLE_MARKER = {"candidate": "o", "control": "s", "original": "D"}


@contextmanager
def _figure(width: float, height: float, salt: str) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of so many CSS pixels, under settings that no user file can change."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": salt,
                "text.parse_math": False,
                "font.size": 10,
                "text.color": INK,
                "axes.edgecolor": MUTED,
                "axes.labelcolor": MUTED,
                "axes.linewidth": 0.8,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "xtick.color": MUTED,
                "ytick.color": MUTED,
                "xtick.major.size": 3,
                "ytick.major.size": 3,
                "grid.color": LINE,
                "grid.linewidth": 0.7,
            }
        )
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid(True)
        yield figure, axes


def _svg(figure: Figure, label: str) -> str:
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable},{colour})")
    return text.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(label)}"', 1).strip()


def _percent_axis(axis: Any, low: float) -> None:
    """Decades written as percent."""
    decades = [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), 1)]
    axis.set_major_locator(FixedLocator(decades))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}%"))


def roc(attack: AttackResult, others: Sequence[Curve], salt: str) -> str | None:
    """Log-log ROC of one attack, from 1/non-members to 1, with its band; other curves in grey.

    Returns:
        SVG text, or None if the attack has no curve.
    """
    curve = attack.roc
    if curve is None or len(curve.fpr) < 2:
        return None
    low = min(1 / max(attack.n_nonmembers, 2), 0.1)
    grid = np.geomspace(low, 1, 90)
    with _figure(300, 270, salt) as (figure, axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, dashes=(3, 3))
        for other in others:
            axes.step(grid, _at(other.fpr, other.tpr, grid, low), where="post", color=LINE, linewidth=1.1)
        fpr, tpr = _visible(curve.fpr, curve.tpr, low)
        axes.fill_between(
            fpr,
            _visible(curve.fpr, curve.tpr_low, low)[1],
            _visible(curve.fpr, curve.tpr_high, low)[1],
            step="post",
            color=MEMBER,
            alpha=0.18,
            linewidth=0,
        )
        axes.step(fpr, tpr, where="post", color=MEMBER, linewidth=1.6)
        axes.set_xlim(low, 1)
        axes.set_ylim(low, 1.05)
        _percent_axis(axes.xaxis, low)
        _percent_axis(axes.yaxis, low)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        return _svg(figure, "ROC curve on logarithmic axes")


def _at(fpr: Sequence[float], tpr: Sequence[float], grid: NDArray[Any], low: float) -> NDArray[Any]:
    """Step values of a curve: the TPR at the largest FPR not above each grid point."""
    position = np.searchsorted(np.asarray(fpr), grid + 1e-15, side="right") - 1
    return np.clip(np.where(position < 0, 0.0, np.asarray(tpr)[np.maximum(position, 0)]), low, 1)


def _visible(fpr: Sequence[float], tpr: Sequence[float], low: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices right of the plot's edge, with the one in force at the edge moved onto it; logs need no zeros.

    Of vertices within a third of a pixel of one another only the last is kept.
    """
    x, y = np.asarray(fpr, float), np.clip(np.asarray(tpr, float), low, 1)
    pixel = np.round(np.log(np.clip(x, low, 1)) / -math.log(low) * 750)
    inside = (x > low) & (pixel != np.append(pixel[1:], np.inf))
    start = _at(fpr, tpr, np.array([low]), low)
    return np.concatenate([[low], x[inside], [1.0]]), np.concatenate([start, y[inside], y[-1:]])


def histogram(content: Histogram, salt: str) -> str | None:
    """Score histograms of members (filled) and non-members (outlined); None if the bins do not fit."""
    bins = len(content.edges) - 1
    if bins < 1 or len(content.members) != bins or len(content.nonmembers) != bins:
        return None
    with _figure(300, 220, salt) as (figure, axes):
        axes.grid(False, axis="x")
        axes.stairs(content.members, content.edges, fill=True, color=MEMBER, alpha=0.35)
        axes.stairs(content.members, content.edges, color=MEMBER, linewidth=1.2)
        axes.stairs(content.nonmembers, content.edges, color=OTHER, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.3g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("score: higher means member")
        axes.set_ylabel("rows")
        return _svg(figure, "Histogram of attack scores of members and non-members")


def reliability(bins: Sequence[RiskBin], salt: str) -> str | None:
    """Share of members among records of about equal risk, with its interval, against that risk; None for no
    bins. On the dashed line risks are what they say."""
    if not bins:
        return None
    with _figure(300, 250, salt) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(3, 3))
        for each in bins:
            axes.plot([each.predicted] * 2, each.ci, color=MEMBER, linewidth=1.1, alpha=0.6)
        axes.plot([b.predicted for b in bins], [b.observed for b in bins], "o", color=MEMBER, markersize=5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f}%"))
        axes.set_xlabel("risk")
        axes.set_ylabel("members among these records")
        return _svg(figure, "Risk of records against the share of members among them")


def privacy_utility(rows: Sequence[Row], salt: str = "privacy-utility") -> str | None:
    """Test accuracy against the worst attack's TPR at the common limit (its AUC where none is supported).

    Points carry the artifact's number. Returns None unless an artifact has both.
    """
    limit = next((row.entry.fpr for row in rows if row.entry is not None), None)
    marks = []
    for row in rows:
        accuracy = row.artifact.utility.test_accuracy
        leak = row.entry if limit is not None else (row.worst.auc if row.worst else None)
        if accuracy is not None and leak is not None:
            marks.append(Mark(row.number, row.artifact.role, accuracy, leak))
    return trade_off(marks, limit, salt) if marks else None


@dataclass(frozen=True)
class Mark:
    """A numbered point of `trade_off`; both have a `value` and a `ci`, shares."""

    number: int
    role: str
    accuracy: Any
    leak: Any


def trade_off(points: Sequence[Mark], limit: float | None, salt: str) -> str:
    """Test accuracy against leakage, one or more points: TPR at a limit, or AUC where `limit` is None."""
    floor = 0.0
    with _figure(380, 300, salt) as (figure, axes):
        if limit is not None:
            floor = min(limit * 0.6, *(max(mark.leak.ci[0], limit / 5) * 0.8 for mark in points))
            top = min(1.1, max(mark.leak.ci[1] for mark in points) * 1.6)
            axes.set_yscale("log")
            axes.set_ylim(floor, max(top, limit * 4))
            ticks = [m * 10.0**p for p in range(-6, 1) for m in (1, 2, 5)]
            axes.yaxis.set_major_locator(
                FixedLocator([t for t in ticks if floor <= t <= max(top, limit * 4)])
            )
            axes.yaxis.set_minor_locator(NullLocator())
            axes.axhline(limit, color=MUTED, linewidth=0.8, dashes=(3, 3))
            axes.set_ylabel(f"members found at {limit * 100:.4g}% false positives")
        else:
            axes.axhline(0.5, color=MUTED, linewidth=0.8, dashes=(3, 3))
            axes.set_ylabel("AUC of the worst attack")
        for mark in points:
            accuracy, leak = mark.accuracy, mark.leak
            colour, value = ROLE_COLOR[mark.role], max(leak.value, floor)
            axes.plot(accuracy.ci, [value, value], color=colour, linewidth=0.9, alpha=0.55)
            ends = [max(leak.ci[0], floor), max(leak.ci[1], floor)]
            axes.plot([accuracy.value] * 2, ends, color=colour, linewidth=0.9, alpha=0.55)
            marker = ROLE_MARKER[mark.role]
            axes.plot([accuracy.value], [value], marker, color=colour, markersize=5)
        if limit is not None:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}%"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("test accuracy")
        _badges(figure, axes, [(mark, mark.accuracy.value, max(mark.leak.value, floor)) for mark in points])
        return _svg(figure, "Privacy against utility: lower and further right is better")


def _badges(figure: Figure, axes: Axes, points: list[tuple[Mark, float, float]]) -> None:
    """Numbered marks beside their points, pushed apart until none covers another badge or point."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    anchors = axes.transData.transform([(x, y) for _, x, y in points])
    box = axes.get_window_extent()
    places = anchors + np.array([12.0, 12.0])
    for _ in range(150):
        for i in range(len(places)):
            for other in (*np.delete(places, i, axis=0), *anchors):
                away = places[i] - other
                distance = float(np.hypot(*away))
                if distance < 16:
                    direction = away / distance if distance > 1e-6 else np.array([math.cos(i), math.sin(i)])
                    places[i] = places[i] + direction * (16 - distance) * 0.5
        places = np.clip(places, [box.x0 + 8, box.y0 + 8], [box.x1 - 8, box.y1 - 8])
    shown = axes.transData.inverted().transform(places)
    for (mark, x, y), (left, up) in zip(points, shown, strict=True):
        colour = ROLE_COLOR[mark.role]
        axes.plot([x, left], [y, up], color=colour, linewidth=0.6)
        marker = ROLE_MARKER[mark.role]
        axes.plot([left], [up], marker, color=colour, markersize=12 if marker == "D" else 14)
        axes.text(
            left,
            up,
            str(mark.number),
            color="white",
            fontsize=8.5,
            fontweight="bold",
            ha="center",
            va="center_baseline",
        )
