"""Sets of attacks: what they hold, and that they stand wherever attacks are named."""

import pytest

from edgeprivacy.attacks import DEFAULT_ATTACKS, attacks
from edgeprivacy.attacks.sets import WEMEM10, expand, members, set_names
from edgeprivacy.errors import UsageError
from edgeprivacy.measuring import chosen_attacks


def test_sets_hold_what_they_say():
    assert set_names() == ("quick", "release", "all", "wemem10", "compleak")
    assert not [name for name in attacks.names() if name.endswith(".faithful") and name in members("all")]
    assert set(members("release")) <= set(members("all"))
    assert all(attacks[name].queries == 1 for name in members("release"))
    assert {"loss", "gap", "confidence", "salem3"} <= set(members("quick"))
    assert not {"lira.online", "nn", "joint.lira"} & set(members("quick"))
    assert {"compleak.nr", "compleak.sr.lr", "compleak.mr.pairs"} <= set(members("compleak"))
    assert members("wemem10") == tuple(name for name in WEMEM10 if name in attacks)
    assert set(DEFAULT_ATTACKS) <= set(members("release"))


def test_names_and_sets_together_give_each_attack_once():
    found = expand(["wemem10", "loss", "nn", "compleak"])
    assert len(found) == len(set(found))
    assert found[: len(members("wemem10"))] == members("wemem10") and "loss" in found
    assert chosen_attacks(["quick"]) == members("quick") and chosen_attacks([]) == DEFAULT_ATTACKS


def test_a_name_that_is_neither_is_told_the_closest_one():
    with pytest.raises(UsageError, match="did you mean 'wemem10'"):
        expand(["wemem1"])
    with pytest.raises(UsageError, match="sets: quick, release"):
        expand(["nonsense"])
