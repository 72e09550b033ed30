"""Gates: decide from an audit's artifacts whether a release passes (`gate_grammar` reads the expressions).

A gate fails when any (artifact, attack) pair that it looks at stands on the failing side. It looks at
candidates only: a control or the original is not what ships.

`at point` compares the estimate, and does not judge a TPR@FPR with less than one expected false positive.
`at ci` decides by the interval: fail if it lies wholly on the failing side, pass if wholly on the other, else
inconclusive. Choosing the worst of k pairs and then reading its 95 % interval would be too sure of itself, so
all k intervals are widened to the level 1 - 0.05/k (Bonferroni). The audit stores 95 % intervals; the
distance from the estimate to each end is stretched by z(1 - 0.025/k) / z(0.975), on the logit scale, or on
the plain scale where the estimate or the end is 0 or 1. A TPR's interval must also contain the
Clopper-Pearson interval of its count of members at that level: a bootstrap cannot see beyond 0 hits out of n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from edgeprivacy.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS, did_you_mean
from edgeprivacy.gate_grammar import OF_ARTIFACTS, Gate, GateOn, Rows, parse_gate
from edgeprivacy.gate_intervals import newcombe_difference, simultaneous
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    BalancedAccuracy,
    GateResult,
    Interval,
    Metric,
    NullTest,
    TprAtFpr,
    Verdict,
    VersionSet,
)

__all__ = ["Case", "Gate", "GateOn", "cases", "evaluate", "parse_gate", "verdict"]


@dataclass(frozen=True)
class Case:
    """What a gate says of one artifact, or of one attack on it.

    `verdict` is "none" for an attack that was skipped. `ci` is the interval that decided (at ci: widened).
    """

    artifact: str
    attack: str | None
    value: float | None
    ci: Interval | None
    verdict: Verdict
    reason: str = ""
    rows: Rows = "population"

    @property
    def label(self) -> str:
        """`lira.online on prune60-int8.wemem`, with `(canaries)` after it where it is about these."""
        where = f"{self.artifact} (canaries)" if self.rows == "canaries" else self.artifact
        return where if self.attack is None else f"{self.attack} on {where}"


Widen = Callable[[int], Interval | None]
"""The interval of a case when this many are read together."""


def cases(
    gate: Gate,
    artifacts: Iterable[ArtifactResult],
    gate_on: GateOn = "point",
    sets: Iterable[VersionSet] = (),
) -> tuple[Case, ...]:
    """What the gate says of each candidate and of each set of candidates that ship together, or of each
    attack on each; `gate.on` goes before `gate_on`. Sets are not measured on canaries."""
    everything, on = tuple(artifacts), gate.on or gate_on
    together_with = tuple(sets) if gate.rows == "population" else ()
    of_sets = {attack.name for versions in together_with for attack in versions.attacks}
    found: list[tuple[Case, Widen]] = []
    for artifact in everything:
        if artifact.role != "candidate" or not _meant(gate, artifact):
            continue
        if gate.metric in OF_ARTIFACTS:
            found.append(_of_artifact(gate, artifact, everything))
            continue
        attacked = artifact.canary_attacks if gate.rows == "canaries" else artifact.attacks
        wanted = [attack for attack in attacked if not gate.attacks or attack.name in gate.attacks]
        found += [_leakage(gate, artifact.name, attack, on) for attack in wanted]
        if not attacked and gate.rows == "canaries":
            continue
        for name in sorted(set(gate.attacks) - {attack.name for attack in wanted} - of_sets):
            found.append((Case(artifact.name, name, None, None, "none", "was not run", gate.rows), _exact))
    for versions in together_with if gate.metric not in OF_ARTIFACTS else ():
        if versions.role == "candidate" and _meant(gate, versions):
            wanted = [
                attack for attack in versions.attacks if not gate.attacks or attack.name in gate.attacks
            ]
            found += [_leakage(gate, versions.name, attack, on) for attack in wanted]
    together = sum(case.value is not None for case, _ in found)
    return tuple(_decide(gate, case, widen(together) if on == "ci" else case.ci, on) for case, widen in found)


def _meant(gate: Gate, artifact: ArtifactResult | VersionSet) -> bool:
    """Whether a gate looks at an artifact; one named without a device is meant on all of them."""
    return not gate.artifacts or any(name in gate.artifacts for name in artifact.names)


def _exact(_: int) -> None:
    return None


def _leakage(gate: Gate, artifact: str, attack: AttackResult, on: GateOn) -> tuple[Case, Widen]:
    blank = Case(artifact, attack.name, None, None, "inconclusive", rows=gate.rows)
    if attack.skipped is not None:
        return replace(blank, verdict="none", reason=f"skipped: {attack.skipped}"), _exact
    metric: Metric | TprAtFpr | None
    if gate.fpr is not None:
        metric = attack.tpr(gate.fpr)
    else:
        metric = attack.auc if gate.metric == "auc" else attack.balanced_accuracy
    if metric is None:
        held = ", ".join(f"{entry.fpr * 100:g}%" for entry in attack.tpr_at_fpr) or "none"
        where = f"; it holds the TPR at FPR {held}" if gate.fpr is not None else ""
        return replace(blank, verdict="none", reason=f"the audit has no {gate.subject} here{where}"), _exact
    value, ci = metric.value, metric.ci
    trials = attack.trials if gate.fpr is not None else None
    reason = ""
    if isinstance(metric, BalancedAccuracy) and metric.threshold == "oracle":
        reason = "its threshold was chosen on the measured rows: an upper bound, no estimate"
    elif isinstance(metric, TprAtFpr) and metric.support == "none" and on == "point":
        reason = f"{attack.n_nonmembers} non-members are too few for an FPR of {metric.fpr * 100:g}%"
    if gate.metric == "advantage":
        shown = replace(blank, value=2 * value - 1, ci=(2 * ci[0] - 1, 2 * ci[1] - 1), reason=reason)
    else:
        shown = replace(blank, value=value, ci=ci, reason=reason)

    def widen(together: int) -> Interval:
        low, high = simultaneous(value, ci, together, trials)
        return (2 * low - 1, 2 * high - 1) if gate.metric == "advantage" else (low, high)

    return shown, widen


def _of_artifact(
    gate: Gate, artifact: ArtifactResult, everything: tuple[ArtifactResult, ...]
) -> tuple[Case, Widen]:
    blank = Case(artifact.name, None, None, None, "inconclusive")
    if gate.metric == "parity.max_abs":
        if artifact.parity is None:
            return replace(blank, reason="parity with the framework model was not measured"), _exact
        return replace(blank, value=artifact.parity.max_abs), _exact
    if gate.metric == "one_run_epsilon":
        if artifact.bounds is None:
            return replace(blank, reason="no bound was measured"), _exact
        bound = artifact.bounds.one_run
        if bound.not_run is not None:
            return replace(blank, reason=f"no bound from one run: {bound.not_run}"), _exact
        return replace(blank, value=bound.epsilon), _exact
    accuracy = artifact.utility.test_accuracy
    if accuracy is None:
        return replace(blank, reason="the test accuracy was not measured"), _exact

    def widen(together: int) -> Interval:
        return simultaneous(accuracy.value, accuracy.ci, together)

    if gate.metric == "accuracy":
        return replace(blank, value=accuracy.value, ci=accuracy.ci), widen
    measured = [
        a.utility.test_accuracy for a in everything if a.role == "original" and a.device == artifact.device
    ]
    original = max((m for m in measured if m is not None), key=lambda m: m.value, default=None)
    if original is None:
        return replace(blank, reason="accuracy_drop needs an artifact with the role 'original'"), _exact

    def widen_drop(together: int) -> Interval:
        before = simultaneous(original.value, original.ci, together)
        return newcombe_difference(original.value, before, accuracy.value, widen(together))

    return replace(blank, value=original.value - accuracy.value, ci=widen_drop(1)), widen_drop


def _decide(gate: Gate, case: Case, ci: Interval | None, on: GateOn) -> Case:
    if case.value is None or case.reason:
        return case
    low, high = ci if on == "ci" and ci is not None else (case.value, case.value)
    sides = {gate.fails(low), gate.fails(high)}
    verdict: Verdict = "inconclusive" if len(sides) == 2 else "fail" if True in sides else "pass"
    return replace(case, ci=ci, verdict=verdict)


def evaluate(
    gates: Sequence[Gate],
    artifacts: Iterable[ArtifactResult],
    gate_on: GateOn = "point",
    sets: Sequence[VersionSet] = (),
) -> tuple[GateResult, ...]:
    """The verdict of each gate on an audit's artifacts and on the sets of them that ship together.

    A gate that names `at ci` or `at point` keeps it; the others follow `gate_on`. Fails if any case fails;
    otherwise inconclusive if any case is, if a candidate has nothing measured, or if there is no case at all.
    """
    everything = tuple(artifacts)
    return tuple(_evaluate(gate, everything, gate.on or gate_on, sets) for gate in gates)


def _evaluate(
    gate: Gate, artifacts: tuple[ArtifactResult, ...], on: GateOn, sets: Sequence[VersionSet]
) -> GateResult:
    canonical = replace(gate, on=on).canonical if on == "ci" or gate.on else gate.canonical
    found = cases(gate, artifacts, on, sets)
    measured = [case for case in found if case.value is not None]
    result = GateResult(gate.expr, canonical, None, None, "inconclusive")
    gaps = _gaps(gate, artifacts, found, sets)
    if not measured:
        return replace(result, detail="; ".join(gaps) or "no candidate was measured")
    upward = gate.op in (">", ">=")
    farthest = max if upward else min
    # The worst case is the one that decides, so a failing or usable one goes before one without support.
    usable = [case for case in measured if not case.reason] or measured
    worst = farthest(usable, key=lambda case: cast(float, case.value))
    intervals = [case.ci for case in usable if case.ci is not None]
    ci = worst.ci
    if on == "ci" and intervals:
        # Under simultaneous intervals the true extreme lies between the extreme of the lower and upper ends.
        ci = farthest(low for low, _ in intervals), farthest(high for _, high in intervals)
    verdicts = {case.verdict for case in found}
    verdict: Verdict = "pass"
    if "fail" in verdicts:
        verdict = "fail"
    elif gaps or "inconclusive" in verdicts:
        verdict = "inconclusive"
    kind = "lowest" if not upward else "highest"
    detail = worst.label if len(measured) == 1 else f"{worst.label}, the {kind} of {len(measured)}"
    if on == "ci" and ci is not None and len(measured) > 1:
        detail += f"; interval at 95 % for all {len(measured)} together"
    if gate.metric == "parity.max_abs" and on == "ci":
        detail += "; measured without sampling error"
    if gate.metric == "one_run_epsilon":
        detail += "; a lower bound, each file's at 95 % by itself"
    return replace(result, observed=worst.value, ci=ci, verdict=verdict, detail="; ".join([detail, *gaps]))


def _gaps(
    gate: Gate, artifacts: tuple[ArtifactResult, ...], found: tuple[Case, ...], sets: Sequence[VersionSet]
) -> list[str]:
    """What keeps a gate from passing: names that match nothing, candidates without a usable value."""
    gaps = []
    looked_at = [artifact for artifact in artifacts if artifact.role == "candidate"]
    candidates = [name for artifact in looked_at for name in artifact.names]
    candidates += [versions.name for versions in sets if versions.role == "candidate"]
    if not candidates:
        gaps.append("the audit holds no candidate")
    for name in gate.artifacts:
        if name not in candidates:
            other = next((f"a {a.role}" for a in artifacts if name in a.names), "not in the audit")
            hint = did_you_mean(name, candidates) if other == "not in the audit" else None
            gaps.append(f"'{name}' is {other}, and gates look at candidates" + (f"; {hint}" if hint else ""))
    for artifact in looked_at:
        if not _meant(gate, artifact):
            continue
        name = artifact.name
        if gate.rows == "canaries" and not artifact.canary_attacks:
            gaps.append(f"{name} was trained on no canaries; `compress --canaries N` makes files that are")
            continue
        own = [case for case in found if case.artifact == name]
        skipped = [case for case in own if case.verdict == "none"]
        if not own and not any(case.attack in gate.attacks for case in found):
            gaps.append(f"{name} was not attacked")
        elif gate.attacks or (own and len(skipped) == len(own)):
            gaps += [f"{case.label}: {case.reason}" for case in skipped[:1]]
        gaps += [
            f"{case.label}: {case.reason}" for case in own if case.reason and case.verdict == "inconclusive"
        ][:1]
    return gaps


def verdict(gates: Sequence[GateResult], null_tests: Iterable[NullTest]) -> tuple[Verdict, int]:
    """Verdict and exit code of an audit.

    A failed null test is inconclusive (3), gate or not; then any failed gate is fail (1), any inconclusive
    one inconclusive (3); else pass (0), or none (0) without a gate.
    """
    if any(test.passed is False for test in null_tests):
        return "inconclusive", EXIT_INCONCLUSIVE
    found = {gate.verdict for gate in gates}
    if "fail" in found:
        return "fail", EXIT_GATE_FAILED
    if "inconclusive" in found:
        return "inconclusive", EXIT_INCONCLUSIVE
    return ("pass", EXIT_PASS) if gates else ("none", EXIT_PASS)
