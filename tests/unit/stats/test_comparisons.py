"""p-values that invert intervals, and Holm's adjustment against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from keeptune.stats import Interval, holm, p_apart, p_outside


def test_holm_is_that_of_statsmodels_and_r() -> None:
    # R's multtest, as statsmodels' tests have it: stats/tests/test_multi.py, pval0 and res_multtest1, column Holm.
    given = [0.838541367553, 0.642193923795, 0.680845947633, 0.967833824309, 0.71626938238]
    given += [0.177096952723, 5.23656777208e-05, 0.0202732688798, 0.00028140506198, 0.0149877310796]
    expected = [1, 1, 1, 1, 1, 1, 5.2365677720800005e-04]
    expected += [1.4191288215860001e-01, 2.5326455578199999e-03, 1.1990184863680001e-01]
    assert holm(given) == pytest.approx(expected, rel=1e-12)
    # The same file, res_multtest3: .001 … .005 and .05 … .09.
    small, large = [0.001, 0.002, 0.003, 0.004, 0.005], [0.05, 0.06, 0.07, 0.08, 0.09]
    assert holm([*small, *large]) == pytest.approx([0.01, 0.018, 0.024, 0.028, 0.03, *[0.25] * 5])


def test_holm_by_hand_and_at_its_ends() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    assert holm([1.0, 0.9]) == [1.0, 1.0]
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, p])


def interval_of(value: float, low: float | None, high: float | None, documents: int = 20) -> Interval:
    return Interval(value=value, low=low, high=high, documents=documents)


@pytest.mark.parametrize("documents", [3, 12, 400])
@pytest.mark.parametrize(
    ("least", "most"), [(-0.1, 0.1), (-math.inf, 0.0), (0.9, math.inf), (-math.inf, 0.3), (0.3, 0.4)]
)
def test_a_p_below_a_twentieth_is_an_interval_beyond(documents: int, least: float, most: float) -> None:
    for value, low, high in [(0.5, 0.2, 0.7), (0.5, -0.01, 2.0), (0.05, 0.0, 0.2), (-0.5, -0.6, 0.1), (0.5, 0.3, 0.6)]:
        beyond = low > most or high < least
        assert (p_outside(interval_of(value, low, high, documents), least, most) < 0.05 - 1e-12) == beyond


def test_p_of_a_t_interval_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(5).normal(0.4, 0.2, 3)
    tested = ttest_1samp(values, 0.1)
    low, high = tested.confidence_interval(0.95)
    assert p_outside(interval_of(values.mean(), low, high, 3), most=0.1) == pytest.approx(tested.pvalue)
    assert p_outside(interval_of(-values.mean(), -high, -low, 3), least=-0.1) == pytest.approx(tested.pvalue)


def test_p_of_few_documents_has_longer_tails() -> None:
    # An interval of ± 1 at a distance of 3 from the bound: the fewer documents, the less surely it lies beyond.
    p = [p_outside(interval_of(3.0, 2.0, 4.0, documents), most=0.0) for documents in (12, 24, 36, 1000)]
    assert p == sorted(p, reverse=True)
    assert p[-1] == pytest.approx(2 * t.sf(3 * t.ppf(0.975, 5), 5))


def test_p_without_an_interval_or_a_width() -> None:
    assert p_outside(interval_of(3.0, None, None, 1), most=0.0) == 1.0
    assert p_outside(interval_of(3.0, 3.0, 3.0), most=0.0) == 0.0
    assert p_outside(interval_of(3.0, 3.0, 3.0), most=3.0) == 1.0
    assert p_apart(interval_of(1.0, None, None), interval_of(2.0, 1.9, 2.1)) == 1.0


def test_intervals_that_touch_have_a_p_of_a_twentieth() -> None:
    first, touching, beyond = interval_of(1.0, 0.5, 1.4), interval_of(2.0, 1.4, 2.1), interval_of(2.0, 1.41, 2.1)
    assert p_apart(first, touching) == pytest.approx(0.05)
    assert p_apart(beyond, first) == p_apart(first, beyond) < 0.05
    assert p_apart(first, first) == 1.0
