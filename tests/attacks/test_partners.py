"""A shadow's exact complement is no shadow of it: the count of IN shadows would tell membership."""

from dataclasses import replace

import numpy as np
import pytest

from edgeprivacy.attacks import Signals, attacks, score_target, scores_for_all_targets, shadow_calibration
from edgeprivacy.attacks.calibration import without


def _signals(models: int, rows: int = 60, partner: bool = True) -> Signals:
    rng = np.random.default_rng(0)
    members = np.zeros((models, rows), dtype=bool)
    members[0] = rng.random(rows) < 0.5
    for first in range(1, models, 2):
        members[first] = rng.random(rows) < 0.5
        if first + 1 < models:
            members[first + 1] = ~members[first]
    partners = np.array([-1] + [m + 1 if m % 2 else m - 1 for m in range(1, models)])
    partners[partners >= models] = -1
    return Signals(
        rng.dirichlet(np.ones(4), size=(models, rows)).astype(np.float32),
        rng.integers(0, 4, rows),
        members,
        np.ones((models, rows), dtype=bool),
        1e-30,
        partner=partners if partner else None,
    )


def test_the_count_of_in_shadows_says_nothing_about_membership():
    signals = _signals(17)
    for target in range(17):
        count = signals.members[signals.shadows(target)].sum(axis=0) - (signals.members[0] if target else 0)
        assert len(np.unique(count)) == 1


def test_without_the_partner_rule_the_count_would_tell():
    signals = _signals(17, partner=False)
    count = signals.members[signals.shadows(3)].sum(axis=0) - signals.members[0]
    assert np.corrcoef(count, signals.members[3])[0, 1] < -0.99


def test_leaving_a_model_out_keeps_the_partners_together():
    rest = without(_signals(7), 3)
    assert rest.partner.tolist() == [-1, 2, 1, -1, 5, 4]
    assert rest.shadows(1).tolist() == [0, 3, 4, 5]


def test_every_target_is_scored_with_partners():
    for models in (2, 3, 4, 5, 9):
        scores = scores_for_all_targets(attacks["nn"], _signals(models, 200))
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", [n for n in attacks.names() if not n.endswith(".faithful")])
def test_no_attack_looks_at_the_partner(name, make_signals):
    signals = make_signals(models=9, rows=120)
    partner = np.array([-1, 2, 1, 4, 3, 6, 5, 8, 7])
    paired = replace(signals, partner=partner)

    def changed(of):
        probabilities = of.probabilities.copy()
        probabilities[4] = probabilities[4, ::-1]
        population = of.population.probabilities.copy()
        population[4] = population[4, ::-1]
        return replace(
            of, probabilities=probabilities, population=replace(of.population, probabilities=population)
        )

    other = replace(changed(paired), versions=tuple(changed(version) for version in paired.versions))
    if attacks[name].missing(paired, shadow_calibration(paired, 3)):
        pytest.skip("asks the file further")
    one, two = (score_target(attacks[name], s, 3).values for s in (paired, other))
    np.testing.assert_array_equal(one, two)
