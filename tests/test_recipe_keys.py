"""A wrong key is told by the name that it has in the recipe, whichever table is read alone."""

from __future__ import annotations

import pytest

from edgeprivacy.errors import RecipeError
from edgeprivacy.recipe import Run
from edgeprivacy.tuning.section import TuneSection


def test_a_key_is_told_as_the_recipe_has_it() -> None:
    with pytest.raises(RecipeError, match=r"^recipe key 'tune\.max_accuracy_loss': .*equal to 0; given: -3"):
        TuneSection.build({"max_accuracy_loss": -3.0})
    with pytest.raises(RecipeError, match=r"^unknown recipe key 'tune\.trails'") as error:
        TuneSection.build({"trails": 3})
    assert "trials" in str(error.value)
    with pytest.raises(RecipeError, match=r"^recipe key 'run\.jobs'"):
        Run.build({"jobs": 0})
