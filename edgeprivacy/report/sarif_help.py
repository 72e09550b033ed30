"""What the rules of a SARIF report mean, in plain words: what was found, and what to do about it."""

from __future__ import annotations

from edgeprivacy.errors import UsageError
from edgeprivacy.gate_grammar import FITNESS, Gate, parse_gate
from edgeprivacy.report import words
from edgeprivacy.results import GateResult, NullTest

_LESS_LEAKAGE = (
    "What to do: do not ship this file. Compress again under a defense (`edgeprivacy defenses` lists them, "
    "`--compare` puts several beside each other), or let the model memorize less: more data, fewer epochs. "
    "If the verdict is inconclusive, audit more rows: a small false-positive rate needs many non-members. "
    "Loosen the gate only if you can say why more of the training data may be told."
)
_MORE_USE = (
    "What to do: compress less (lower sparsity, more clusters, a wider number format) or train longer, and "
    "look at the leakage again: one is often paid with the other."
)
_TRUE_TO_MODEL = (
    "What to do: look at the conversion. Calibrate an integer format on rows like those in use, or ship a "
    "wider format; then audit again."
)
_UNKNOWN = "What to do: see the audit's report; the gate was written for another version of edgeprivacy."
_NULL_ADVICE = (
    "What to do: believe no number of this audit, neither a good nor a bad one. Bring members and "
    "non-members to the same source, the same preparation and the same query, and audit again. The mistake "
    "is in the measurement, not in the model."
)
_ATTACKER = "Somebody who holds the file tries to tell which rows trained it."


def gate_help(gate: GateResult) -> tuple[str, str]:
    """What a gate asks, and what to do where it does not hold."""
    try:
        parsed = parse_gate(gate.canonical, check_attacks=False)
    except UsageError:
        return f"The release fails if {words.clean(gate.canonical)}.", _UNKNOWN
    advice = _LESS_LEAKAGE
    if parsed.metric in FITNESS:
        advice = _TRUE_TO_MODEL if parsed.metric == "parity.max_abs" else _MORE_USE
    about = _question(parsed)
    if parsed.on == "ci":
        about += " The interval decides, widened where several attacks or files are judged together."
    return about, advice


def _question(gate: Gate) -> str:
    """What fails the release, in words."""
    side = {">": "above", ">=": "at or above", "<": "below", "<=": "at or below"}[gate.op]
    attacks = " and ".join(words.clean(name) for name in gate.attacks) or "any attack"
    share, number = f"{side} {words.limit_percent(gate.threshold)}", f"{side} {gate.threshold:g}"
    if gate.fpr is not None:
        accused = words.limit_percent(gate.fpr)
        fails = (
            f"{attacks} finds a share of them {share} while accusing at most {accused} of outsiders wrongly"
        )
    elif gate.metric == "parity.max_abs":
        fails = f"a probability of the file differs from that of the model it was made from by {number}"
    elif gate.metric == "one_run_epsilon":
        fails = f"one training run shows that the epsilon of its privacy is no smaller than a number {number}"
    elif gate.metric == "accuracy":
        fails = f"the file's accuracy on test rows is {share}"
    elif gate.metric == "accuracy_drop":
        fails = f"compression costs a share of the test accuracy {share}"
    else:
        coin = {"auc": "0.5 is a coin", "balanced_accuracy": "0.5 is a coin", "advantage": "0 is a coin"}
        name = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "advantage": "advantage"}
        fails = f"the {name[gate.metric]} of {attacks} is {number} ({coin[gate.metric]})"
    who = "" if gate.metric in FITNESS else f"{_ATTACKER} "
    return f"{who}The release fails if {fails}."


def null_help(test: NullTest) -> tuple[str, str]:
    """What a failed null test says, and what to do."""
    meaning = words.null_meaning(test)
    return (
        f"A null test looks for something that is not there. Where this one fails: {meaning[0].lower()}"
        f"{meaning[1:]}",
        _NULL_ADVICE,
    )
