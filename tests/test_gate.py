"""Gates: grammar, evidence, intervals and exit codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgeprivacy.bounds_results import Bounds, OneRunBound, RecordRisk, Strength
from edgeprivacy.errors import UsageError
from edgeprivacy.gate import cases, evaluate, parse_gate, verdict
from edgeprivacy.gate_grammar import Gate
from edgeprivacy.gate_intervals import clopper_pearson, newcombe_difference, simultaneous
from edgeprivacy.results import (
    ArtifactResult,
    AttackResult,
    BalancedAccuracy,
    GateResult,
    Metric,
    NullTest,
    Parity,
    TprAtFpr,
    Utility,
)

ATTACKS = ("lira.online", "confidence", "rmia.offline")


def attack(name: str = "lira.online", hits: int = 155, members: int = 5000, **changes: Any) -> AttackResult:
    exact = binomtest(hits, members).proportion_ci(0.95)
    entry = TprAtFpr(0.001, hits / members, (exact.low, exact.high), "low")
    made = AttackResult(
        name,
        "1",
        "paper",
        members,
        members,
        auc=Metric(0.641, (0.630, 0.652)),
        balanced_accuracy=BalancedAccuracy(0.6, (0.58, 0.62)),
        tpr_at_fpr=(entry,),
    )
    return replace(made, **changes)


def artifact(
    *attacks: AttackResult, name: str = "a", role: Any = "candidate", accuracy: float = 0.8
) -> ArtifactResult:
    utility = Utility(Metric(accuracy, (accuracy - 0.03, accuracy + 0.03)))
    parity = Parity(0.004, 1, 100)
    return ArtifactResult(name, role, "tflite", "int8", "wemem", "f", "00", 10, 9, utility, parity, attacks)


def gate(text: str, *artifacts: ArtifactResult, on: Any = "point") -> GateResult:
    (result,) = evaluate([parse_gate(text, ATTACKS)], artifacts, on)
    return result


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tpr@0.1%fpr>0.02", "tpr@0.1%fpr > 0.02"),
        ("  TPR @ 0.1 % FPR >= 2e-2 ", "tpr@0.1%fpr >= 0.02"),
        ("tpr@0.01%fpr>.5 at ci", "tpr@0.01%fpr > 0.5 at ci"),
        ("auc>0.6 for attack=lira.online", "auc > 0.6 for attack=lira.online"),
        (
            'auc > 0.6 for artifact="my model" for attack=confidence attack=lira.online at point',
            'auc > 0.6 for attack=confidence for attack=lira.online for artifact="my model" at point',
        ),
        ("accuracy_drop>0.02", "accuracy_drop > 0.02"),
        ("accuracy<0.6", "accuracy < 0.6"),
        ("advantage>-0.1", "advantage > -0.1"),
        ("parity.max_abs > 0.1", "parity.max_abs > 0.1"),
        ("balanced_accuracy<=0.6", "balanced_accuracy <= 0.6"),
        ("tpr@0.1%fpr[canaries]>0.1", "tpr@0.1%fpr[canaries] > 0.1"),
        (" TPR @ 0.1 % fpr [ Canaries ] > 0.1 at ci", "tpr@0.1%fpr[canaries] > 0.1 at ci"),
        ("auc[canaries]>0.7 for attack=confidence", "auc[canaries] > 0.7 for attack=confidence"),
        ("auc[population]>0.7", "auc > 0.7"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    parsed = parse_gate(text, ATTACKS)
    assert parsed.canonical == canonical
    assert replace(parse_gate(canonical, ATTACKS), expr="") == replace(parsed, expr="")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aucc>0.6", "did you mean 'auc'"),
        ("balanced-accuracy>0.6", "did you mean 'balanced_accuracy'"),
        ("lira.online tpr@1%fpr>0.1", "unknown metric 'lira.online'"),
        ("", "unknown metric"),
        ("tpr@0.1fpr>0.02", "in percent"),
        ("tpr@0.1%>0.02", "in percent"),
        ("tpr@x%fpr>0.02", "in percent"),
        ("tpr@0%fpr>0.02", "out of range"),
        ("tpr@100%fpr>0.02", "out of range"),
        ("tpr>0.02", "needs the false-positive rate"),
        ("auc@1%fpr>0.6", "takes no false-positive rate"),
        ("tpr@0.1%fpr", "quote the expression"),
        ("auc==0.6", "unknown operator"),
        ("auc!=0.6", "unknown operator"),
        ("auc>", "bad number"),
        ("auc>nan", "bad number"),
        ("auc>2%", "2 % is written 0.02"),
        ("auc>60", "bad number"),
        ("auc>1", "can never fail"),
        ("accuracy<0", "can never fail"),
        ("auc>0.6 for attack=lira.onlin", "did you mean 'lira.online'"),
        ("accuracy<0.6 for attack=lira.online", "belongs to an artifact"),
        ("auc>0.6 for", "ends too early"),
        ("auc>0.6 at ci at point", "cannot read 'at'"),
        ("auc>0.6 and auc>0.7", "cannot read 'and'"),
        ("auc>0.6 attack=lira.online", "cannot read"),
        ("auc[canary]>0.6", "did you mean 'canaries'"),
        ("auc[canaries>0.6", "no such rows"),
        ("auc[]>0.6", "no such rows"),
        ("auc[canaries]@1%fpr>0.6", "no such rows"),
        ("accuracy[canaries]<0.6", "belongs to an artifact"),
        ("auc[canaries]", "quote the expression"),
    ],
)
def test_unreadable_gates_say_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text, ATTACKS)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="tprauc@%fpr><= 0.1foratci=[nies]", max_size=30))
def test_any_text_is_a_gate_or_a_usage_error(text: str) -> None:
    try:
        parsed = parse_gate(text, ATTACKS)
    except UsageError:
        return
    assert isinstance(parsed, Gate) and parse_gate(parsed.canonical, ATTACKS).canonical == parsed.canonical


def test_point_takes_the_worst_attack_of_the_candidates_only() -> None:
    leaky = artifact(attack(hits=4000), name="control", role="control")
    original = artifact(attack(hits=4000), name="original", role="original")
    good = artifact(attack(hits=90), attack("confidence", hits=95))
    result = gate("tpr@0.1%fpr>0.02", leaky, original, good)
    assert (result.verdict, result.observed) == ("pass", 0.019)
    assert "confidence on a" in result.detail
    bad = artifact(attack(hits=101), name="b")
    assert gate("tpr@0.1%fpr>0.02", good, bad).verdict == "fail"
    assert gate("tpr@0.1%fpr>0.02 for artifact=a", good, bad).verdict == "pass"
    assert gate("tpr@0.1%fpr>0.019 for attack=lira.online", good).verdict == "pass"


def test_operators_at_the_threshold() -> None:
    one = artifact(attack(hits=100))
    found = [gate(f"tpr@0.1%fpr{op}0.02", one).verdict for op in (">", ">=", "<", "<=")]
    assert found == ["pass", "fail", "pass", "fail"]


# Certified counts for a ceiling of 0.02: with one attack the two-sided interval is Clopper-Pearson at 95 %.
@pytest.mark.parametrize(("hits", "expected"), [(79, "pass"), (100, "inconclusive"), (123, "fail")])
def test_interval_decides(hits: int, expected: str) -> None:
    assert gate("tpr@0.1%fpr>0.02", artifact(attack(hits=hits)), on="ci").verdict == expected
    assert gate("tpr@0.1%fpr>0.02 at ci", artifact(attack(hits=hits))).verdict == expected
    at_point = gate("tpr@0.1%fpr>0.02 at point", artifact(attack(hits=hits)), on="ci")
    assert at_point.verdict == ("fail" if hits > 100 else "pass")


def test_bonferroni_over_attacks_and_candidates() -> None:
    # 123 of 5000 is certified above 2 % on its own, and no longer when it is the worst of twelve.
    many = [artifact(attack(hits=123), *(attack(f"x{i}", hits=10) for i in range(5)), name=n) for n in "ab"]
    result = gate("tpr@0.1%fpr>0.02", *many, on="ci")
    assert result.verdict == "inconclusive" and "12 together" in result.detail
    alone = gate("tpr@0.1%fpr>0.02 for attack=lira.online for artifact=a", *many, on="ci")
    assert alone.verdict == "fail"
    exact = binomtest(123, 5000).proportion_ci(1 - 0.05 / 12)
    assert result.ci is not None
    assert result.ci[0] <= exact.low + 1e-9 < 0.02 < alone.ci[0]  # type: ignore[index]
    assert result.ci[0] == pytest.approx(exact.low, abs=5e-4)
    assert result.ci[1] == pytest.approx(exact.high, abs=5e-4)


def test_zero_hits_are_not_certain() -> None:
    entry = TprAtFpr(0.001, 0.0, (0.0, 0.0), "low")
    few = artifact(attack(members=50, hits=0, tpr_at_fpr=(entry,)))
    assert gate("tpr@0.1%fpr>0.02", few, on="ci").verdict == "inconclusive"
    enough = artifact(attack(members=500, hits=0, tpr_at_fpr=(entry,)))
    assert gate("tpr@0.1%fpr>0.02", enough, on="ci").verdict == "pass"


def test_support_and_gaps_are_inconclusive() -> None:
    unsupported = attack(tpr_at_fpr=(TprAtFpr(0.001, 0.5, (0.4, 0.6), "none"),))
    assert gate("tpr@0.1%fpr>0.02", artifact(unsupported)).verdict == "inconclusive"
    assert gate("tpr@0.1%fpr>0.02", artifact(unsupported), on="ci").verdict == "fail"
    # A supported attack that fails decides whatever the other would have said.
    assert gate("tpr@0.1%fpr>0.02", artifact(unsupported, attack("confidence"))).verdict == "fail"
    assert gate("tpr@0.1%fpr>0.04", artifact(unsupported, attack("confidence"))).verdict == "inconclusive"
    oracle = attack(balanced_accuracy=BalancedAccuracy(0.9, (0.8, 0.95), None, "oracle"))
    assert gate("balanced_accuracy>0.6", artifact(oracle)).verdict == "inconclusive"
    skipped = attack(skipped="needs 2 shadows", auc=None, balanced_accuracy=None, tpr_at_fpr=())
    result = gate("auc>0.6", artifact(skipped))
    assert result.verdict == "inconclusive" and "needs 2 shadows" in result.detail and result.observed is None
    assert gate("auc>0.7", artifact(skipped, attack("confidence"))).verdict == "pass"
    assert (
        gate("auc>0.7 for attack=lira.online", artifact(skipped, attack("confidence"))).verdict
        == "inconclusive"
    )
    assert gate("auc>0.7", artifact(attack()), artifact(skipped, name="b")).verdict == "inconclusive"
    assert gate("auc>0.7", artifact(attack()), artifact(name="b")).verdict == "inconclusive"
    assert gate("auc>0.7").verdict == "inconclusive"
    assert "1%" not in gate("tpr@5%fpr>0.02", artifact(attack())).canonical
    assert "FPR 0.1%" in gate("tpr@5%fpr>0.02", artifact(attack())).detail


def test_named_artifact_that_is_none() -> None:
    control = artifact(attack(), name="prune60.none", role="control")
    result = gate("auc>0.9 for artifact=prune60.none", artifact(attack()), control)
    assert result.verdict == "inconclusive" and "is a control" in result.detail
    result = gate("auc>0.9 for artifact=prune60.wemen", artifact(attack(), name="prune60.wemem"))
    assert "did you mean 'prune60.wemem'" in result.detail


def test_utility_metrics() -> None:
    original = artifact(name="o", role="original", accuracy=0.85)
    small = artifact(attack(), accuracy=0.8)
    assert gate("accuracy<0.8", small).verdict == "pass"
    assert gate("accuracy<0.81", small, original).verdict == "fail"
    assert gate("accuracy<0.81", small, on="ci").verdict == "inconclusive"
    drop = gate("accuracy_drop>0.04", small, original)
    assert drop.verdict == "fail" and drop.observed == pytest.approx(0.05)
    without = gate("accuracy_drop>0.04", small)
    assert without.verdict == "inconclusive" and "role 'original'" in without.detail
    assert gate("parity.max_abs>0.003", small, on="ci").verdict == "fail"
    assert gate("parity.max_abs>0.003", replace(small, parity=None)).verdict == "inconclusive"
    assert gate("advantage>0.19", small).observed == pytest.approx(0.2)
    assert gate("advantage>0.19", small, on="ci").verdict == "inconclusive"


def test_the_bound_of_one_run() -> None:
    strength = Strength(0.0, 0.95, 0.0, 0.0, 10, 10, "strength")
    shown = [
        replace(artifact(attack(), name=name), bounds=Bounds("loss", run, strength, RecordRisk()))
        for name, run in (
            ("a", OneRunBound(epsilon=0.4)),
            ("b", OneRunBound(epsilon=1.2)),
            ("c", OneRunBound(not_run="no coins")),
        )
    ]
    found = gate("one_run_epsilon>1", *shown[:2])
    assert (found.verdict, found.observed, found.ci) == ("fail", 1.2, None)
    assert found.detail.startswith("b, the highest of 2; a lower bound")
    assert gate("one_run_epsilon > 1.5", *shown[:2], on="ci").verdict == "pass"
    refused = gate("one_run_epsilon>1.5", *shown)
    assert refused.verdict == "inconclusive" and "no coins" in refused.detail
    assert gate("one_run_epsilon>1", artifact()).verdict == "inconclusive"
    assert parse_gate("one_run_epsilon>12").threshold == 12


def test_newcombe_against_his_table() -> None:
    # Newcombe 1998, table II, example (a): 56/70 and 48/80, method 10.
    def wilson(hits: int, n: int) -> tuple[float, float]:
        found = binomtest(hits, n).proportion_ci(0.95, "wilson")
        return found.low, found.high

    low, high = newcombe_difference(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.5, 0.9999))
def test_clopper_pearson_is_scipys(n: int, share: float, level: float) -> None:
    hits = round(share * n)
    expected = binomtest(hits, n).proportion_ci(level)
    assert clopper_pearson(hits, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(1, 200))
def test_more_comparisons_never_narrow(values: list[float], comparisons: int) -> None:
    low, value, high = sorted(values)
    wide = simultaneous(value, (low, high), comparisons)
    wider = simultaneous(value, (low, high), comparisons + 1)
    assert 0 <= wider[0] <= wide[0] <= low and high <= wide[1] <= wider[1] <= 1


def test_one_case_a_pair() -> None:
    found = cases(parse_gate("tpr@0.1%fpr>0.02"), [artifact(attack(), attack("confidence", hits=5))])
    assert [(case.artifact, case.attack, case.verdict) for case in found] == [
        ("a", "lira.online", "fail"),
        ("a", "confidence", "pass"),
    ]


def test_verdict_and_exit_code() -> None:
    def result(word: Any) -> GateResult:
        return GateResult("e", "e", None, None, word)

    passed, failed, absent = (NullTest("n", p, None, "") for p in (True, False, None))
    assert verdict([], [passed, absent]) == ("none", 0)
    assert verdict([result("pass")], [passed]) == ("pass", 0)
    assert verdict([result("inconclusive"), result("pass")], []) == ("inconclusive", 3)
    assert verdict([result("pass"), result("inconclusive"), result("fail")], [absent]) == ("fail", 1)
    assert verdict([result("fail")], [failed]) == ("inconclusive", 3)
    assert verdict([], [failed]) == ("inconclusive", 3)


def test_canaries_and_population_are_told_apart() -> None:
    quiet, loud = attack(auc=Metric(0.55, (0.54, 0.56))), attack(auc=Metric(0.9, (0.88, 0.92)))
    both = replace(artifact(quiet), canary_attacks=(loud, attack("confidence", skipped="no")))
    assert gate("auc>0.6", both).verdict == "pass"
    found = gate("auc[canaries]>0.6", both)
    assert (found.verdict, found.observed) == ("fail", 0.9)
    assert found.canonical == "auc[canaries] > 0.6" and "lira.online on a (canaries)" in found.detail
    assert gate("auc[canaries]>0.6 for attack=confidence", both).verdict == "inconclusive"
    assert "was not run" in gate("auc[canaries]>0.6 for attack=rmia.offline", both).detail
    for text in ("auc[canaries]>0.6", "auc[canaries]>0.6 for attack=confidence"):
        without = gate(text, artifact(quiet))
        assert without.verdict == "inconclusive" and without.detail.count("no canaries") == 1
        assert "--canaries" in without.detail and "was not" not in without.detail


def test_pairs_of_many_models_are_no_more_certain_than_their_rows() -> None:
    """A pooled TPR of 0 out of 17 x 500 pairs: at ci its interval reaches as far as 0 of 500."""
    nothing = TprAtFpr(0.001, 0.0, (0.0, 0.0), "low")
    pooled = attack(members=4250, targets=17, tpr_at_fpr=(nothing,))
    found = gate("tpr@0.1%fpr[canaries]>0.005 at ci", replace(artifact(), canary_attacks=(pooled,)))
    assert found.verdict == "inconclusive"
    assert found.ci == (0.0, pytest.approx(1 - 0.025 ** (1 / 500)))
