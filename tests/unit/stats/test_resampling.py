"""The bootstrap: right value, right unit, right range, against loops written here and scipy's, and what it covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from keeptune.stats import MIN_DOCUMENTS, Array, Interval, bootstrap, bootstrap_ratio


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def documents(count: int, seed: int) -> tuple[Array, Array]:
    """Sums and tokens of skewed documents of unequal lengths."""
    generator = np.random.default_rng(seed)
    tokens_D = generator.integers(20, 400, count).astype(np.float64)
    return tokens_D * generator.exponential(1.0, count), tokens_D


def studentised_by_loop(statistic: Callable[[Array], float], rows_DK: Array, tail: float) -> tuple[float, float]:
    """The bootstrap-t with jackknife standard errors, one resample after the other."""
    count, generator = len(rows_DK), np.random.default_rng(99)

    def error(rows: Array) -> float:
        without = np.array([statistic(np.delete(rows, place, axis=0)) for place in range(count)])
        return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))

    value, own = statistic(rows_DK), error(rows_DK)
    drawn = (rows_DK[generator.integers(count, size=count)] for _ in range(1000))
    reached = [(statistic(rows) - value) / error(rows) for rows in drawn]
    low, high = np.quantile(reached, [tail, 1 - tail])
    return value - high * own, value - low * own


def ratio(rows: Array) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def test_value_is_the_ratio_of_sums() -> None:
    interval = bootstrap_ratio(np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 4.0]))
    assert interval.value == pytest.approx(1.5)
    assert interval.documents == 3


@pytest.mark.parametrize("count", [20, 40])
def test_ends_are_those_of_a_plain_loop(count: int) -> None:
    sums_D, tokens_D = documents(count, seed=count)
    low, high = ends(bootstrap_ratio(sums_D, tokens_D))
    tail = 0.025 * (1 - 1.6 * count ** (-1 / 3))
    expected = studentised_by_loop(ratio, np.stack([sums_D, tokens_D], axis=1), tail)
    assert (low, high) == pytest.approx(expected, abs=0.15 * (high - low))


def test_with_many_documents_it_is_scipys_bca() -> None:
    sums_D, tokens_D = documents(800, seed=0)
    low, high = ends(bootstrap_ratio(sums_D, tokens_D))
    drawn = stats.bootstrap(
        (sums_D, tokens_D),
        lambda sums, tokens, axis: sums.sum(axis=axis) / tokens.sum(axis=axis),
        paired=True,
        n_resamples=2000,
        method="BCa",
        rng=1,
    )
    expected = drawn.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.08 * (high - low))


def test_means_of_many_normal_documents_have_students_interval() -> None:
    values_D = np.random.default_rng(0).normal(2.0, 0.5, 1000)
    low, high = ends(bootstrap_ratio(values_D, np.ones(1000)))
    expected = stats.t.interval(0.95, 999, values_D.mean(), stats.sem(values_D))
    assert (low, high) == pytest.approx(expected, abs=0.05 * (high - low))


def test_a_statistic_of_two_samples_is_that_of_a_loop() -> None:
    # The product of two ratios, of texts with different numbers of documents.
    one_DK, other_DK = (np.stack(documents(count, seed=count), axis=1) for count in (40, 25))

    def price(one: Array, other: Array) -> Any:
        return one[..., 0] / one[..., 1] * other[..., 0] / other[..., 1]

    found = bootstrap(price, one_DK, other_DK)
    assert found.value == pytest.approx(ratio(one_DK) * ratio(other_DK))
    assert found.documents == 25
    # The logarithm's variance is the sum of both relative variances.
    widths = [np.ptp(ends(bootstrap_ratio(*rows_DK.T))) / ratio(rows_DK) for rows_DK in (one_DK, other_DK)]
    assert np.ptp(ends(found)) / found.value == pytest.approx(np.hypot(*widths), rel=0.15)


def test_r_squared_ends_at_one() -> None:
    generator = np.random.default_rng(1)
    x = np.linspace(0, 1, 20)
    for noise in (0.0, 0.01, 0.3):
        y = x + noise * generator.standard_normal(20)
        columns_DK = np.stack([(y - x) ** 2, y**2, y, np.ones(20)], axis=1)
        found = bootstrap(lambda s: 1 - s[..., 0] / (s[..., 1] - s[..., 2] ** 2 / s[..., 3]), columns_DK, most=1.0)
        low, high = ends(found)
        assert low <= found.value <= high <= 1.0


@pytest.mark.parametrize("agreed", [[1.0] * 12, [1.0] * 11 + [0.99], [0.0] * 11 + [0.5], [0.9, 1.0] * 6])
def test_shares_stay_within_their_range(agreed: list[float]) -> None:
    found = bootstrap_ratio(100 * np.array(agreed), np.full(12, 100.0), least=0.0, most=1.0)
    low, high = ends(found)
    assert 0.0 <= low <= found.value <= high <= 1.0
    assert (low < high) == (len(set(agreed)) > 1)


def test_a_kl_is_not_below_zero() -> None:
    kl_D = np.array([0.0] * 9 + [0.1, 0.5, 3.0])
    assert ends(bootstrap_ratio(kl_D, np.ones(12)))[0] < 0
    assert ends(bootstrap_ratio(kl_D, np.ones(12), least=0.0))[0] == 0.0


def test_pairing_makes_a_ratio_of_like_documents_sharp() -> None:
    difficulty_D = np.random.default_rng(2).lognormal(0.0, 1.0, 60)
    assert ends(bootstrap_ratio(0.3 * difficulty_D, difficulty_D)) == pytest.approx((0.3, 0.3))


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(3).random(30)
    assert bootstrap_ratio(values, np.ones(30)) == bootstrap_ratio(values, np.ones(30))
    assert bootstrap_ratio(values, np.ones(30)) != bootstrap_ratio(values, np.ones(30), seed=1)


def test_resamples_in_parts_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sums_D, tokens_D = documents(40, seed=4)
    whole = bootstrap_ratio(sums_D, tokens_D)
    monkeypatch.setattr("keeptune.stats.resampling._KEPT", 7)
    assert ends(bootstrap_ratio(sums_D, tokens_D)) == pytest.approx(ends(whole))


def test_a_higher_level_is_wider() -> None:
    sums_D, tokens_D = documents(40, seed=5)
    (low, high), (lower, higher) = (ends(bootstrap_ratio(sums_D, tokens_D, level=level)) for level in (0.9, 0.99))
    assert lower < low < high < higher


@pytest.mark.parametrize("count", [2, 3, MIN_DOCUMENTS - 1])
def test_few_documents_have_at_least_students_interval(count: int) -> None:
    values_D = np.random.default_rng(count).exponential(1.0, count)
    low, high = ends(bootstrap_ratio(values_D, np.ones(count)))
    expected = stats.t.interval(0.95, count - 1, values_D.mean(), stats.sem(values_D))
    assert low <= expected[0] + 1e-9
    assert high >= expected[1] - 1e-9


def test_one_document_has_no_interval_and_none_is_an_error() -> None:
    one = bootstrap_ratio(np.array([2.0]), np.array([4.0]))
    assert (one.value, one.low, one.high) == (0.5, None, None)
    with pytest.raises(ValueError, match="one number a document"):
        bootstrap_ratio(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="one document or more"):
        bootstrap(lambda sums: sums[..., 0], np.empty((0, 1)))


def test_a_resample_without_a_value_counts_at_both_ends() -> None:
    # In three of ten resamples no document has a denominator.
    found = bootstrap_ratio(np.ones(12), np.array([1.0] + [0.0] * 11))
    assert ends(found) == (-np.inf, np.inf)


@pytest.mark.parametrize(("kind", "count"), [("lognormal", 12), ("exponential", 24)])
def test_intervals_cover_the_truth_at_their_level(kind: str, count: int) -> None:
    generator = np.random.default_rng(6)
    covered = 0
    for _ in range(300):
        tokens_D = generator.integers(100, 500, count).astype(float)
        mean_D = generator.lognormal(-0.5, 1.0, count) if kind == "lognormal" else generator.exponential(1.0, count)
        low, high = ends(bootstrap_ratio(tokens_D * mean_D, tokens_D))
        covered += low <= 1.0 <= high
    assert covered / 300 >= 0.91
