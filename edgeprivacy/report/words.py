"""Numbers and sentences that the reports share, so that no two of them tell different stories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeprivacy.errors import UsageError
from edgeprivacy.gate_grammar import parse_gate
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    Audit,
    GateResult,
    Interval,
    Metric,
    NullTest,
    TprAtFpr,
)

VERDICT_WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "none": "No gate"}
_NOT_RUN = {True: "passed", False: "failed", None: "not run"}


def clean(value: object) -> str:
    """Text of a stranger with control, direction and other unprintable characters made visible."""
    return "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def percent(share: float) -> str:
    """0.1544 -> "15.4%"; below 0.1 % two digits, so that 0.04 % does not become zero."""
    return f"{_in_percent(share)}%"


def _in_percent(share: float) -> str:
    return f"{share * 100:.2f}" if 0 < abs(share) < 0.00095 else f"{share * 100:.1f}"


def limit_percent(fpr: float) -> str:
    """A limit of the false-positive rate: 0.001 -> "0.1%"."""
    return f"{fpr * 100:.12g}%"


def percent_interval(ci: Interval) -> str:
    """ "[13.4, 17.4]", in percent."""
    return f"[{_in_percent(ci[0])}, {_in_percent(ci[1])}]"


def decimal(value: float) -> str:
    """Three decimals, as AUCs are written."""
    return f"{value:.3f}"


def decimal_interval(ci: Interval) -> str:
    """ "[0.706, 0.755]"."""
    return f"[{ci[0]:.3f}, {ci[1]:.3f}]"


def share(metric: Metric | TprAtFpr | None, gap: str = " ") -> str:
    """A share with its interval: "15.4% [13.4, 17.4]"; a dash for None."""
    return "–" if metric is None else f"{percent(metric.value)}{gap}{percent_interval(metric.ci)}"


def auc(metric: Metric | None, gap: str = " ") -> str:
    """An AUC with its interval: "0.731 [0.706, 0.755]"; a dash for None."""
    return "–" if metric is None else f"{decimal(metric.value)}{gap}{decimal_interval(metric.ci)}"


def size(count: int) -> str:
    """Bytes in the unit that fits: "150.6 KiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


def gate_value(gate: GateResult) -> str:
    """The observed value of a gate with its interval, or a dash."""
    if gate.observed is None:
        return "–"
    observed = f"{gate.observed:.4f}"
    return observed if gate.ci is None else f"{observed} [{gate.ci[0]:.4f}, {gate.ci[1]:.4f}]"


def null_status(test: NullTest) -> str:
    """ "passed", "failed" or "not run"."""
    return _NOT_RUN[test.passed]


def null_title(test: NullTest) -> str:
    """The test's title, else its name in words."""
    return clean(test.title or test.name.replace("-", " ").replace("_", " "))


def null_meaning(test: NullTest) -> str:
    """What a failure of this test says about everything else in the audit."""
    name = test.name.lower()
    if "held" in name or "hold" in name:
        return (
            "Rows that no model was trained on can be told from non-members. The members' side is loaded, "
            "transformed or chosen differently, and the attacks may be measuring that instead of the model."
        )
    if "perm" in name:
        return "With membership shuffled the attack still finds something: the measurement itself is biased."
    if "blind" in name:
        return (
            "The inputs alone, without any model, tell members from non-members. The two groups differ, and "
            "an attack can score high on a model that leaks nothing."
        )
    if any(word in name for word in ("path", "twice", "quer", "load", "same")):
        return (
            "The same rows gave other inputs or outputs when they were loaded and queried again: members and "
            "non-members were not measured in the same way."
        )
    return "A test that must find nothing found something: the numbers may not come from the model."


def common_limit(audit: Audit) -> TprAtFpr | None:
    """An entry with the smallest FPR limit that every attack in the audit supports: by "ok", else by "low".

    One limit for all artifacts, so that rows of a table and points of a plot can be compared.
    """
    ran = [attack for artifact in audit.artifacts for attack in artifact.attacks if attack.tpr_at_fpr]
    for accepted in (("ok",), ("ok", "low")):
        shared = [
            entry
            for entry in (ran[0].tpr_at_fpr if ran else ())
            if all((e := a.tpr(entry.fpr)) is not None and e.support in accepted for a in ran)
        ]
        if shared:
            return min(shared, key=lambda entry: entry.fpr)
    return None


@dataclass(frozen=True)
class Row:
    """One artifact as tables and plots show it.

    Attributes:
        number: Its number in tables and plots, from 1.
        worst: The attack that hurts it most, or None if none ran.
        entry: That attack's TPR at the limit common to all artifacts, or None where no limit is supported.
    """

    number: int
    artifact: ArtifactResult
    worst: AttackResult | None
    entry: TprAtFpr | None


def rows(audit: Audit) -> list[Row]:
    """All artifacts in the order of the audit, each with its worst attack."""
    limit = common_limit(audit)
    found = []
    for number, artifact in enumerate(audit.artifacts, 1):
        worst = artifact.worst_attack()
        entry = worst.tpr(limit.fpr) if worst is not None and limit is not None else None
        found.append(Row(number, artifact, worst, entry))
    return found


def failed_null_tests(audit: Audit) -> list[NullTest]:
    """Null tests that found what is not there."""
    return [test for test in audit.null_tests if test.passed is False]


def worst_candidate(audit: Audit) -> Row | None:
    """The candidate whose worst attack is strongest, or None if none was attacked."""
    attacked = [row for row in rows(audit) if row.artifact.role == "candidate" and row.worst is not None]

    def strength(row: Row) -> tuple[float, float]:
        auc = row.worst.auc if row.worst is not None else None
        return (row.entry.value if row.entry else 0.0, auc.value if auc else 0.0)

    return max(attacked, key=strength, default=None)


def headline(audit: Audit) -> str:
    """The first line of every report, after the verdict's word."""
    failed = failed_null_tests(audit)
    if failed:
        names = ", ".join(null_title(test) for test in failed)
        many = "Null tests" if len(failed) > 1 else "A null test"
        return f"{many} failed ({names}): the leakage measured here may not come from the model."
    of_kind = [gate for gate in audit.gates if gate.verdict == audit.verdict]
    if audit.verdict == "fail" and of_kind:
        return " ".join(_told(gate) for gate in of_kind)
    if audit.verdict == "inconclusive" and of_kind:
        names = ", ".join(clean(gate.canonical) for gate in of_kind)
        return f"The evidence does not decide {names}."
    if audit.verdict == "pass":
        count = len(audit.gates)
        return "The gate holds." if count == 1 else f"All {count} gates hold."
    row = worst_candidate(audit)
    if row is None or row.worst is None:
        return "No attack could run on a candidate."
    name, attack = clean(row.artifact.name), clean(row.worst.name)
    if row.entry is not None:
        fpr = limit_percent(row.entry.fpr)
        return (
            f"On {name}, {attack} finds {percent(row.entry.value)} of the members at {fpr} false positives."
        )
    assert row.worst.auc is not None
    return f"On {name}, {attack} reaches an AUC of {decimal(row.worst.auc.value)}."


def _told(gate: GateResult) -> str:
    """A failed gate in a sentence; one that this version cannot read is quoted."""
    try:
        parsed = parse_gate(gate.canonical, check_attacks=False)
    except UsageError:
        return f"{clean(gate.canonical)}: observed {gate_value(gate)}."
    if gate.observed is None:
        return f"{clean(gate.canonical)}."
    where = clean(gate.detail.partition(",")[0].partition(";")[0])
    bound = "at most" if parsed.op in (">", ">=") else "at least"
    shown, allowed = percent(gate.observed), limit_percent(parsed.threshold)
    on_canaries = " on canaries" if parsed.rows == "canaries" else ""
    if parsed.fpr is not None:
        who = "canaries that trained the file" if parsed.rows == "canaries" else "members"
        what = f"{shown} of the {who} are found at {limit_percent(parsed.fpr)} false positives"
    elif parsed.metric in ("auc", "advantage", "parity.max_abs", "one_run_epsilon"):
        shown, allowed = decimal(gate.observed), f"{parsed.threshold:g}"
        names = {
            "auc": "the AUC",
            "advantage": "the membership advantage",
            "parity.max_abs": "the largest |Δp|",
            "one_run_epsilon": "the epsilon that one run shows",
        }
        what = f"{names[parsed.metric]}{on_canaries} is {shown}"
    else:
        names = {"accuracy": "test accuracy", "accuracy_drop": "the loss of accuracy"}
        what = f"{names.get(parsed.metric, parsed.metric.replace('_', ' '))}{on_canaries} is {shown}"
    return f"{what[0].upper()}{what[1:]} ({where}); the gate allows {bound} {allowed}."


def reading(audit: Audit) -> list[str]:
    """What the numbers of this audit mean, for somebody who ships releases and has read no paper."""
    row = worst_candidate(audit)
    if row is None or row.worst is None:
        return ["No attack could run on a candidate, so this audit says nothing about what it gives away."]
    name, attack, worst = clean(row.artifact.name), clean(row.worst.name), row.worst
    sentences = []
    if failed_null_tests(audit):
        sentences.append(
            "A null test failed: what follows is how the numbers would read, and no finding about the model. "
            "Clear up the failed test and audit again."
        )
    if row.entry is not None:
        limit, entry = limit_percent(row.entry.fpr), row.entry
        accused = math.floor(entry.fpr * worst.n_nonmembers + 1e-9)
        found = round(entry.value * worst.n_members)
        sentences.append(
            f"An attacker holds {name} and wants to know who was in its training data. If at most "
            f"{accused:,} of {worst.n_nonmembers:,} outsiders may be accused wrongly (a false-positive rate "
            f"of {limit}), {attack} rightly names {found:,} of the {worst.n_members:,} members: "
            f"{percent(entry.value)}, "
            f"95% interval {percent_interval(entry.ci)}. Guessing would name {limit}."
        )
        if entry.support != "ok":
            sentences.append("With so few expected false positives this is a rough number.")
    if worst.auc is not None:
        sentences.append(
            f"The AUC of {decimal(worst.auc.value)} is the chance that a random member scores above a random "
            "non-member; 0.5 is a coin. It averages over everybody and can look harmless while a few are "
            "found with certainty, so read the true-positive rate first."
        )
    sentences.append(
        "An interval says how far a number could move with other rows and this same file. Where it is "
        "wider than your decision can bear, audit more rows."
    )
    return sentences


def flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON content as (dotted key, text) pairs, for fact tables."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from flatten(value, f"{prefix}.{clean(key)}" if prefix else clean(key))
    elif isinstance(content, list | tuple) and any(isinstance(item, dict | list) for item in content):
        for position, item in enumerate(content):
            yield from flatten(item, f"{prefix}.{position}")
    elif isinstance(content, list | tuple):
        yield prefix, ", ".join(clean(item) for item in content) or "–"
    elif isinstance(content, float):
        yield prefix, f"{content:.6g}"
    else:
        yield prefix, "–" if content is None or content == {} else clean(content)
