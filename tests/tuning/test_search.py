"""Rounds, halving, the front and the budget, on made-up measurements that a naive reading can follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Recipe
from edgeprivacy.tuning.budget import Budget
from edgeprivacy.tuning.outcome import Tuned, numbered
from edgeprivacy.tuning.points import Point, Value, false_positives, front
from edgeprivacy.tuning.search import Round, Tried, evaluations, rounds_of, search
from edgeprivacy.tuning.section import TuneSection
from edgeprivacy.tuning.space import Candidate, Setting, Space
from edgeprivacy.tuning.words import explanation, headline, lines

optuna = pytest.importorskip("optuna", reason="needs the extra tune")
BASE = Recipe.build({"backend": "tflite", "audit": {"shadows": 16}})
NO_BUDGET = Budget()


def point(
    leak: float, accuracy: float, size: int = 100, setting: Setting | None = None, **more: Any
) -> Point:
    made = setting or Setting(Candidate("tflite", "hamp"), BASE, {})
    told = {"round": 0, "name": "a", "format": "int8", "attack": "rmia.offline", "gzip_bytes": size, **more}
    return Point(
        made,
        leakage=Value(leak, (leak, leak)),
        accuracy=Value(accuracy, (accuracy, accuracy), 0.01, 5),
        size_bytes=size,
        **told,
    )


def test_a_faster_file_is_on_the_front_and_a_little_faster_is_not() -> None:
    slow, fast = point(0.1, 0.6, latency_ms=2.0), point(0.2, 0.6, latency_ms=1.0)
    assert front([slow, fast]) == [slow, fast]
    assert front([slow, point(0.2, 0.6, latency_ms=1.9)]) == [slow]
    equal = point(0.1, 0.6, latency_ms=1.0)
    assert front([slow, equal]) == [equal] and front([slow, point(0.2, 0.6)]) == [slow]


@given(
    st.lists(st.tuples(*[st.integers(0, 1)] * 3, st.sampled_from([None, 1.0, 1.08, 1.17, 2.0])), max_size=8)
)
def test_the_winner_is_on_the_front_however_many_are_alike(
    values: list[tuple[int, int, int, float | None]],
) -> None:
    points = tuple(
        point(leak / 3, accuracy / 3, size, latency_ms=time) for leak, accuracy, size, time in values
    )
    entry = Tried(Setting(Candidate("tflite", "hamp"), BASE, {}), points, {"int8": 1.0})
    made = Tuned(BASE, TuneSection(), NO_BUDGET, rounds_of(16, "auc"), (entry,), 1)
    assert bool(made.front) == bool(points)
    winner = made.winner
    assert winner is None if not points else any(winner is kept for kept in made.front)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=12))
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int, int]]) -> None:
    points = [point(leak / 3, accuracy / 3, size) for leak, accuracy, size in values]
    kept = front(points)

    def beats(a: Point, b: Point) -> bool:
        no_worse = (
            a.leakage.value <= b.leakage.value
            and a.accuracy.value >= b.accuracy.value
            and a.size_bytes <= b.size_bytes
        )
        same = (a.leakage, a.accuracy, a.size_bytes) == (b.leakage, b.accuracy, b.size_bytes)
        return no_worse and not same

    expected = {
        (p.leakage.value, p.accuracy.value, p.size_bytes)
        for p in points
        if not any(beats(other, p) for other in points)
    }
    assert [(p.leakage.value, p.accuracy.value, p.size_bytes) for p in kept] == sorted(
        expected, key=lambda e: (e[0], e[2], -e[1])
    )


def test_rounds_spend_more_and_more() -> None:
    assert [(r.epochs, r.shadows, r.objective) for r in rounds_of(16, "tpr@1%fpr")] == [
        *((0.5, 2, "auc"), (1.0, 4, "auc"), (1.0, 16, "tpr@1%fpr"))
    ]
    assert [(r.epochs, r.shadows) for r in rounds_of(4, "auc")] == [(0.5, 2), (1.0, 2), (1.0, 4)]
    assert [(r.epochs, r.shadows) for r in rounds_of(2, "auc")] == [(1.0, 2)]


def test_a_round_shortens_every_phase_and_the_last_one_none() -> None:
    first, _, last = rounds_of(16, "auc")
    shorter = first.of(BASE)
    assert shorter.training.epochs == -(-BASE.training.epochs // 2)
    assert shorter.prune.finetune_epochs == -(-BASE.prune.finetune_epochs // 2)
    assert shorter.quantize.qat_epochs == -(-BASE.quantize.qat_epochs // 2)
    assert shorter.audit.shadows == 2 and shorter.defense == BASE.defense
    assert last.of(BASE) is BASE and last.of(BASE).id == BASE.id


@pytest.mark.parametrize(
    ("defense", "epochs"),
    [
        ({"name": "mia-pruning"}, {"epochs": 10}),
        ({"name": "mia-pruning", "epochs": 1}, {"epochs": 1}),
        ({"name": "mia-pruning:minmax", "epochs": 7}, {"epochs": 4}),
        ({"name": "defensive-quantization"}, {"epochs": 5}),
        ({"name": "mia-pruning+relaxloss"}, {"mia-pruning.epochs": 10}),
        ({"name": "mia-pruning+relaxloss", "mia-pruning.epochs": 6}, {"mia-pruning.epochs": 3}),
        ({"name": "mia-pruning+relaxloss", "epochs": 6}, {"epochs": 3}),
        # Neither adds a phase: the first is a limit of the recipe's own, the second of a probe.
        ({"name": "early-stopping", "epochs": 8}, {"epochs": 8}),
        ({"name": "cwrf", "epochs": 2}, {"epochs": 2}),
    ],
)
def test_a_round_shortens_the_phase_that_a_defense_adds(
    defense: dict[str, Any], epochs: dict[str, int]
) -> None:
    first, _, last = rounds_of(16, "auc")
    recipe = Recipe.build({"backend": "tflite", "audit": {"shadows": 16}, "defense": defense})
    settings = first.of(recipe).defense.settings
    assert {key: value for key, value in settings.items() if key.endswith("epochs")} == epochs
    assert last.of(recipe) is recipe


def made_up(setting: Setting, entry: Round) -> list[Point]:
    """Leakage falls with alpha, and so does accuracy; early rounds are a little off."""
    if setting.candidate.defense == "none":
        return [point(0.5, 0.60, setting=setting)]
    alpha = float(setting.recipe.defense.settings.get("alpha", 1.0))
    return [point(0.5 - 0.2 * alpha + 0.01 * entry.number, 0.60 - 0.03 * alpha, setting=setting)]


PINNED = {"prune.sparsity": [0.6]}


def run(
    defenses: Sequence[str],
    budget: Budget,
    trials: int,
    seed: int = 0,
    tried: dict[str, Any] = PINNED,
    check: Callable[[Recipe], None] = lambda recipe: None,
) -> tuple[Any, list[Any]]:
    space = Space(BASE, TuneSection.build({"defenses": defenses, "space": tried})).checked_by(check)
    rounds, calls = rounds_of(16, "tpr@1%fpr"), []

    def evaluate(setting: Setting, entry: Round) -> list[Point]:
        calls.append((setting.candidate.defense, dict(setting.changes), entry.number))
        return made_up(setting, entry)

    found = search(space, budget, trials, 1 / 3, rounds, seed, evaluate)
    assert len(calls) <= evaluations(space, trials, rounds, 1 / 3)
    return found, calls


def test_each_round_keeps_a_third_and_the_best_reaches_the_last() -> None:
    found, calls = run(["relaxloss"], Budget(2.0), 9)
    of_round = [[changes for _, changes, number in calls if number == k and _ != "none"] for k in range(3)]
    # In the last round the defaults stand beside the best.
    assert [len(entries) for entries in of_round] == [9, 3, 2] and of_round[2][1] == {}
    assert of_round[0][0] == {}, "the defaults come first"
    within = [c.get("relaxloss.alpha", 1.0) for c in of_round[0]]
    # Two points of accuracy are lost at alpha 2/3: the least leaking within the budget lies just below.
    best = max(alpha for alpha in within if 3 * alpha <= 2)
    assert of_round[2][0]["relaxloss.alpha"] == best
    assert [entry.setting.candidate.defense for entry in found] == ["none", "relaxloss", "relaxloss"]


def test_what_cannot_be_is_suggested_and_not_made() -> None:
    def check(recipe: Recipe) -> None:
        if recipe.defense.settings.get("alpha", 1.0) > 1.0:
            raise RecipeError("too much")

    _, calls = run(["relaxloss"], NO_BUDGET, 9, check=check)
    made = [changes for name, changes, number in calls if name == "relaxloss" and number == 0]
    assert len(made) == 9 and max(changes.get("relaxloss.alpha", 1.0) for changes in made) <= 1.0


def test_the_sampler_learns_where_the_budget_ends() -> None:
    _, calls = run(["relaxloss"], Budget(2.0), 40)
    tried = [changes["relaxloss.alpha"] for name, changes, number in calls if changes and number == 0]
    late = [alpha for alpha in tried[20:] if 0.3 < alpha <= 0.67]
    assert len(late) > 20 * (0.67 - 0.3) / 1.9 * 2, "twice as often as by chance"


def test_one_more_candidate_changes_nothing_for_the_others() -> None:
    _, few = run(["relaxloss", "ccl"], Budget(2.0), 6)
    _, more = run(["relaxloss", "hamp", "ccl"], Budget(2.0), 6)
    assert [call for call in more if call[0] != "hamp"] == few
    assert run(["relaxloss"], Budget(2.0), 6)[1] == run(["relaxloss"], Budget(2.0), 6)[1]
    assert run(["relaxloss"], Budget(2.0), 6)[1] != run(["relaxloss"], Budget(2.0), 6, seed=1)[1]


class Studies:
    """Every study that a search opens."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened: list[Any] = []
        create = optuna.create_study

        def opening(**options: Any) -> Any:
            self.opened.append(create(**options))
            return self.opened[-1]

        patch.setattr(optuna, "create_study", opening)


def test_the_sampler_is_told_what_the_defaults_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = Studies(monkeypatch)
    run(["relaxloss"], Budget(2.0), 6)
    (study,) = studies.opened
    complete = optuna.trial.TrialState.COMPLETE
    first, *others = study.get_trials(states=[complete])
    # By `made_up`: alpha 1 leaks 0.3 and is one of three points over the budget.
    assert first.params == {"relaxloss.alpha": 1.0} and first.values == pytest.approx([0.3, 0.57, 100])
    assert first.user_attrs["excess"] == pytest.approx([0.01])
    assert len(others) == 5, "the defaults count among the settings that are tried"
    run(["relaxloss"], Budget(2.0), 6, tried={**PINNED, "relaxloss.alpha": {"low": 0.3, "high": 0.4}})
    told = studies.opened[1].get_trials(states=[complete])
    assert len(told) == 5, "nobody could suggest the defaults there"


def test_no_setting_is_made_twice_in_a_round() -> None:
    tried = {**PINNED, "early-stopping.epochs": {"low": 4, "high": 6}}
    _, calls = run(["early-stopping"], Budget(2.0), 12, tried=tried)
    made = [changes for name, changes, number in calls if name != "none" and number == 0]
    assert made[0] == {} and sorted(entry["early-stopping.epochs"] for entry in made[1:]) == [4, 6]


def test_no_defense_is_measured_where_the_others_are() -> None:
    found, calls = run(["relaxloss", "hamp"], Budget(2.0), 6, tried={})
    of_none = [e.setting.recipe.prune.sparsity for e in found if e.setting.candidate.defense == "none"]
    assert of_none == [0.6, 0.8, 0.9]
    # The recipe's own compression in every round, for the budget; the others in the last one alone.
    assert [(dict(c), number) for name, c, number in calls if name == "none"] == [
        *(({}, 0), ({}, 1), ({}, 2), ({"prune.sparsity": 0.8}, 2), ({"prune.sparsity": 0.9}, 2))
    ]
    assert [call for call in run(["hamp"], Budget(2.0), 6, tried={})[1] if call[0] == "none"] == [
        call for call in calls if call[0] == "none"
    ]


def test_no_defense_is_searched_like_the_others_where_there_is_much_to_try() -> None:
    tried = {**PINNED, "training.epochs": {"low": 2, "high": 90}}
    found, calls = run(["hamp"], Budget(2.0), 6, tried=tried)
    of_none = [(changes, number) for name, changes, number in calls if name == "none" and changes]
    assert [number for _, number in of_none] == sorted(number for _, number in of_none)
    assert 3 <= sum(number == 0 for _, number in of_none) <= 5
    last = [e.setting for e in found if e.setting.candidate.defense == "none"]
    assert last[0].changes == {} and len(last) <= 2


@pytest.mark.parametrize("trials", [1, 2, 3, 6])
@pytest.mark.parametrize("tried", [{}, PINNED, {"training.epochs": [5, 6], "prune.sparsity": [0.6, 0.7]}])
def test_what_is_planned_is_what_is_made(trials: int, tried: dict[str, Any]) -> None:
    space = Space(BASE, TuneSection.build({"defenses": ["relaxloss", "less-data"], "space": tried}))
    rounds, calls = rounds_of(16, "auc"), []

    def evaluate(setting: Setting, entry: Round) -> list[Point]:
        calls.append((setting.candidate.name, str(setting.changes), entry.number))
        return made_up(setting, entry)

    search(space, NO_BUDGET, trials, 1 / 3, rounds, 0, evaluate)
    planned = evaluations(space, trials, rounds, 1 / 3)
    assert len(calls) == len(set(calls))
    # Where no defense is searched too, its defaults are known in every round.
    few = trials == 1 or space.few(space.control("tflite"), trials) is not None
    # Each of the two defenses' defaults may be the best of its settings.
    assert planned - (0 if few else len(rounds) - 1) - 2 <= len(calls) <= planned


def tuned(budget: Budget) -> Tuned:
    found, _ = run(["relaxloss", "hamp"], budget, 6)
    rounds = rounds_of(16, "tpr@1%fpr")
    return Tuned(BASE, TuneSection(), budget, rounds, tuple(found), 3)


def test_the_winner_leaks_least_within_the_budget() -> None:
    made = tuned(Budget(2.0, 1000))
    winner = made.winner
    assert winner is not None and made.loss(winner) <= 2.0
    within = [p for e, p in made.points if e.excess(p, made.budget) == 0]
    assert winner.leakage.value == min(p.leakage.value for p in within)
    assert any(winner is p for p in made.front)
    marked = [line for line in lines(made) if "winner" in line.mark]
    assert len(marked) == 1 and marked[0].point is winner
    names = [name for name, _ in numbered(made.front)]
    assert len(set(names)) == len(names) and names[0].startswith("01-")


def test_the_very_limit_is_within_the_budget() -> None:
    """0.62 - 0.6 is a little more than 0.02."""
    assert 100 * (0.62 - 0.6) > 2.0 and Budget(2.0).excess(point(0.1, 0.6), 0.62) == 0
    assert Budget(2.0).excess(point(0.1, 0.5999), 0.62) > 0
    assert all(Budget(2.0).excess(point(0.1, k / 1000 - 0.02), k / 1000) == 0 for k in range(20, 1000))


def test_an_impossible_budget_names_the_nearest() -> None:
    made = tuned(Budget(2.0, 50))
    assert made.winner is None and made.exit_code == 3
    nearest = made.nearest
    assert nearest is not None and made.loss(nearest) <= 2.0, "all are too large; this one loses too little"
    assert headline(made) == "Nothing keeps the budget."
    assert "at most 50 bytes" in explanation(made) and nearest.told in explanation(made)
    assert all("over budget" in line.mark for line in lines(made))


@pytest.mark.parametrize("objective", ["tpr", "acc", "tpr@5%fpr", "auc>0.5", "loss", "tpr@1%fpr[canaries]"])
def test_what_is_no_objective(objective: str) -> None:
    from edgeprivacy.errors import UsageError

    with pytest.raises(UsageError, match="is no objective"):
        false_positives(objective)


def test_objectives_are_limits_that_every_audit_measures() -> None:
    assert [false_positives(f"tpr@{limit}%fpr") for limit in ("1", "0.1", "0.01")] == [0.01, 0.001, 0.0001]


def test_a_private_winner_is_told_that_the_choice_is_not_covered() -> None:
    setting = Setting(Candidate("tflite", "dpsgd"), BASE, {})
    tried = Tried(setting, (point(0.01, 0.6, setting=setting),), {"int8": 0.6})
    made = Tuned(BASE, TuneSection(), NO_BUDGET, rounds_of(16, "auc"), (tried,), 1)
    assert any("does not cover that choice" in note for note in made.notes())
    assert not any("cover" in note for note in tuned(Budget(2.0)).notes())


def test_steps_of_a_file_s_answers_are_told_beside_fine_ones() -> None:
    def notes(*rounded: bool) -> str:
        points = tuple(point(0.1 * k, 0.6 + 0.1 * k, rounded=coarse) for k, coarse in enumerate(rounded))
        entry = Tried(Setting(Candidate("tflite", "hamp"), BASE, {}), points, {"int8": 0.6})
        return " ".join(Tuned(BASE, TuneSection(), NO_BUDGET, rounds_of(16, "auc"), (entry,), 1).notes())

    assert "coarse steps" in notes(True, False)
    assert "coarse steps" in notes(False, True), "though the coarse file beats the other"
    assert "coarse steps" not in notes(True, True) + notes(False, False)
