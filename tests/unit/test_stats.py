"""Intervals: right value, right width, right unit, and what they look like; exact tests against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, ttest_1samp

from keeptune.stats import (
    Interval,
    bootstrap,
    bootstrap_ratio,
    clopper_pearson,
    evenly_spaced,
    format_ends,
    format_interval,
    holm,
    mcnemar,
    p_apart,
    p_outside,
    resampled_counts,
    wilson,
)


def test_value_is_the_ratio_of_sums() -> None:
    interval = bootstrap_ratio(np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 4.0]))
    assert interval.value == pytest.approx(1.5)
    assert interval.documents == 3


def test_width_is_that_of_the_standard_error_over_documents() -> None:
    generator = np.random.default_rng(0)
    tokens_D = np.full(400, 50.0)
    sums_D = generator.normal(2.0, 0.5, 400) * 50
    interval = bootstrap_ratio(sums_D, tokens_D)
    assert interval.low is not None
    assert interval.high is not None
    half_width = 1.96 * np.std(sums_D / 50, ddof=1) / np.sqrt(400)
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, rel=0.1)


def test_intervals_cover_the_truth_at_their_level() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        tokens_D = generator.integers(20, 80, 40).astype(float)
        sums_D = tokens_D * generator.normal(1.0, 0.3, 40)
        interval = bootstrap_ratio(sums_D, tokens_D)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_makes_a_ratio_of_like_documents_sharp() -> None:
    difficulty_D = np.random.default_rng(2).lognormal(0.0, 1.0, 60)
    paired = bootstrap_ratio(0.3 * difficulty_D, difficulty_D)
    assert paired.low == pytest.approx(0.3)
    assert paired.high == pytest.approx(0.3)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).random(30)
    assert bootstrap_ratio(values, np.ones(30)) == bootstrap_ratio(values, np.ones(30))


def test_one_document_has_no_interval_and_none_is_an_error() -> None:
    one = bootstrap_ratio(np.array([2.0]), np.array([4.0]))
    assert (one.value, one.low, one.high) == (0.5, None, None)
    with pytest.raises(ValueError, match="one number a document"):
        bootstrap_ratio(np.array([]), np.array([]))


def test_the_bootstrap_of_any_statistic_has_the_width_of_the_ratio() -> None:
    values = np.random.default_rng(4).normal(size=400)
    free, ratio = bootstrap(lambda drawn: values[drawn].mean(), 400), bootstrap_ratio(values, np.ones(400))
    assert free.value == pytest.approx(ratio.value)
    assert (free.low, free.high) == pytest.approx((ratio.low, ratio.high), abs=0.02)
    few = bootstrap(lambda drawn: float(np.median(values[drawn])), 400, seed=1, resamples=50)
    assert few == bootstrap(lambda drawn: float(np.median(values[drawn])), 400, seed=1, resamples=50)
    assert few != bootstrap(lambda drawn: float(np.median(values[drawn])), 400, seed=2, resamples=50)
    with pytest.raises(ValueError, match="one unit"):
        bootstrap(lambda drawn: 0.0, 0)


def test_every_resample_holds_as_many_documents() -> None:
    counts_RD = resampled_counts(7, seed=1)
    assert counts_RD.shape == (2000, 7)
    assert set(counts_RD.sum(axis=1)) == {7.0}
    assert np.array_equal(counts_RD, resampled_counts(7, seed=1))


def test_infinite_resamples_need_the_nearest_quantile() -> None:
    drawn_R = np.array([1.0] * 90 + [np.inf] * 10)
    assert Interval.of_resamples(1.0, drawn_R, 5, method="nearest").high == np.inf
    drawn_R = np.array([1.0] * 99 + [np.inf])
    assert Interval.of_resamples(1.0, drawn_R, 5, method="nearest").high == 1.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 5), (0, 6), (45, 20), (700, 640)])
def test_mcnemar_is_the_sum_of_binomial_terms(lost: int, gained: int) -> None:
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


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
    values = np.random.default_rng(5).normal(0.4, 1.0, 25)
    tested = ttest_1samp(values, 0.1)
    low, high = tested.confidence_interval(0.95)
    assert p_outside(interval_of(values.mean(), low, high, 25), most=0.1) == pytest.approx(tested.pvalue)
    assert p_outside(interval_of(-values.mean(), -high, -low, 25), least=-0.1) == pytest.approx(tested.pvalue)


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


def test_wilson_by_hand_and_at_the_ends() -> None:
    # 8 of 10: the roots of (p − .8)² = 1.96²·p(1 − p)/10.
    share, none, all_of_them = wilson(8, 10), wilson(0, 10), wilson(10, 10)
    for end in (share.low, share.high):
        assert end is not None
        assert (end - 0.8) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 10, rel=1e-5)
    assert share.ends() == pytest.approx({"value": 0.8, "low": 0.4902, "high": 0.9433}, abs=5e-5)
    assert (none.value, none.low, all_of_them.value, all_of_them.high) == (0.0, 0.0, 1.0, 1.0)
    assert none.high == pytest.approx(0.2775, abs=5e-5)
    assert all_of_them.low == pytest.approx(1 - 0.2775, abs=5e-5)


@pytest.mark.parametrize(("count", "items"), [(0, 1), (0, 20), (3, 20), (20, 20)])
def test_clopper_pearson_is_a_quantile_of_the_beta_distribution(count: int, items: int) -> None:
    interval = clopper_pearson(count, items)
    low = float(beta.ppf(0.025, count, items - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, items - count)) if count < items else 1.0
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.documents == items


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)
    for of in (wilson, clopper_pearson):
        for count, items in ((1, 0), (3, 2), (-1, 5)):
            with pytest.raises(ValueError, match="no share"):
                of(count, items)


def test_intervals_are_written_alike() -> None:
    interval = {"value": 0.03149, "low": 0.027, "high": 0.036, "documents": 12}
    assert format_interval(interval) == "0.0315 [0.0270, 0.0360]"
    assert format_interval(interval, ".1f", ends=".0f", scale=100, separator="\n") == "3.1\n[3, 4]"
    assert format_interval({**interval, "low": None, "high": None}, ".2f") == "0.03"
    assert (
        format_interval(interval, ".2%", number=lambda value, form: f"<{value:{form}}>") == "<3.15%> [<2.70%>, <3.60%>]"
    )
    assert format_ends(-1.0, 2.0, "+.1f") == "[-1.0, +2.0]"
    assert format_ends(None, None) == ""


def test_places_are_spread_over_the_whole() -> None:
    assert evenly_spaced(10, 4) == [0, 2, 5, 7]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(0, 5) == []
