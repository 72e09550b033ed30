"""Plots: what is drawn stands where the numbers are."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from edgeprivacy.report import plots, words
from edgeprivacy.results import Audit, Curve, Histogram

SVG = "{http://www.w3.org/2000/svg}"


def curve(audit: Audit) -> str:
    text = plots.roc(audit.artifacts[1].attacks[2], [], "salt")
    assert text is not None
    return text


def points(path: str) -> np.ndarray:
    return np.array([[float(n) for n in pair] for pair in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)])


def line(text: str, colour: str) -> np.ndarray:
    """The longest open path in a colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\([^)]*{colour}\)', text)
    return max((points(path) for path in paths), key=len)


def test_svg_is_text_without_ids_fonts_or_dates(audit: Audit) -> None:
    text = curve(audit)
    root = ElementTree.fromstring(text)
    labels = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    assert "false-positive rate" in labels and "0.1%" in labels and "100%" in labels
    assert "<metadata" not in text and "<style" not in text and not re.search(r'<g id="', text)
    assert root.get("width") is None and root.get("viewBox") is not None
    assert "var(--member,#0072b2)" in text


def test_roc_is_the_step_curve(audit: Audit) -> None:
    attack = audit.artifacts[1].attacks[2]
    assert attack.roc is not None
    drawn = line(curve(audit), plots.MEMBER)
    # Axes in pixels, from the drawn curve's own ends: 1/1250 at the left, 1 at the right, 1 at the top.
    left, right = drawn[:, 0].min(), drawn[:, 0].max()
    low = 1 / attack.n_nonmembers
    fpr = np.exp(np.log(low) * (1 - (drawn[:, 0] - left) / (right - left)))
    tpr = np.exp(-(drawn[:, 1] - drawn[-1, 1]) * np.log(1.05 / low) / _axis_height(curve(audit)))
    held_fpr, held_tpr = np.array(attack.roc.fpr), np.array(attack.roc.tpr)
    for x, y in zip(fpr[1:-1:7], tpr[1:-1:7], strict=True):
        # Each vertex lies on a horizontal or vertical piece of the step curve, within a pixel.
        below = held_tpr[held_fpr <= x * 0.97].max(initial=0)
        above = held_tpr[held_fpr <= x * 1.03].max(initial=0)
        assert below * 0.97 <= y <= above * 1.03


def _axis_height(text: str) -> float:
    """Length of the left spine."""
    spines = [points(path) for path in re.findall(r'<path d="([^"]*)"', text)]
    vertical = [p for p in spines if len(p) == 2 and p[0, 0] == p[1, 0]]
    return float(max(abs(p[0, 1] - p[1, 1]) for p in vertical))


def test_roc_starts_at_one_nonmember_and_survives_zeros() -> None:
    from edgeprivacy.results import AttackResult

    flat = Curve((0.0, 0.5, 1.0), (0.0, 0.5, 1.0), (0.0, 0.4, 1.0), (0.1, 0.6, 1.0))
    attack = AttackResult("a", "1", "p", 10, 10, roc=flat)
    text = plots.roc(attack, [flat], "s")
    assert text is not None and "nan" not in text.lower() and "inf" not in text.lower()
    assert plots.roc(replace(attack, roc=None), [], "s") is None
    assert plots.roc(replace(attack, roc=Curve((), (), (), ())), [], "s") is None


def test_histogram_needs_bins_that_fit() -> None:
    good = Histogram((0.0, 1.0, 2.0), (0.5, 0.5), (1.0, 0.0))
    assert plots.histogram(good, "s") is not None
    assert plots.histogram(replace(good, edges=(0.0, 1.0)), "s") is None
    assert plots.histogram(Histogram((), (), ()), "s") is None


def test_scatter_numbers_every_artifact(audit: Audit) -> None:
    rows = words.rows(audit)
    text = plots.privacy_utility(rows)
    assert text is not None
    labels = ["".join(node.itertext()).strip() for node in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert {"1", "2", "3", "4", "5", "6"} <= set(labels)
    assert "members found at 1% false positives" in labels
    assert len(set(plots.ROLE_MARKER.values())) == len(set(plots.ROLE_COLOR.values())) == 3
    without = [replace(row, entry=None) for row in rows]
    assert "AUC of the worst attack" in (plots.privacy_utility(without) or "")
    assert plots.privacy_utility([]) is None


def test_badges_of_equal_points_do_not_cover_one_another(audit: Audit) -> None:
    same = [replace(row, number=number) for number, row in enumerate([words.rows(audit)[2]] * 5, 1)]
    text = plots.privacy_utility(same)
    assert text is not None
    places = re.findall(r'translate\(([\d.]+) ([\d.]+)\)"[^>]*>([1-5])</text>', text) or re.findall(
        r'x="([\d.]+)" y="([\d.]+)"[^>]*>([1-5])</text>', text
    )
    spots = np.array([[float(x), float(y)] for x, y, _ in places])
    assert len(spots) == 5
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(5, 1)]
    assert gaps.min() > 10


@pytest.mark.parametrize("setting", [{"text.usetex": True}, {"svg.fonttype": "path"}, {"font.size": 30}])
def test_a_users_settings_change_nothing(audit: Audit, setting: dict[str, object]) -> None:
    expected = curve(audit)
    with matplotlib.rc_context(setting):
        assert curve(audit) == expected
        assert all(matplotlib.rcParams[key] == value for key, value in setting.items())
