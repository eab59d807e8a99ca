"""Intervals: right value, right width, right unit."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.stats import bootstrap_ratio


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
