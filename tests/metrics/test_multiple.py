import numpy as np
import pytest

from edgeprivacy.errors import DataError
from edgeprivacy.metrics.multiple import holm


def test_worked_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    result = holm([0.01, 0.04, 0.03, 0.005], level=0.05)
    assert result.adjusted == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert result.rejected == (True, False, False, True)


def test_nothing_one_and_bad_values():
    assert holm([]) == ((), ())
    assert holm([0.02], level=0.05) == ((0.02,), (True,))
    for bad in ([1.5], [float("nan")]):
        with pytest.raises(DataError):
            holm(bad)


def test_family_wise_level_holds():
    rng = np.random.default_rng(0)
    wrong = np.mean([any(holm(rng.random(6), level=0.05).rejected) for _ in range(4000)])
    assert wrong == pytest.approx(0.05, abs=0.014)
