"""Intervals against known values; verdicts by the rule; the table that tells them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))

import stats
import verdicts
from stats import CONFIRMED, CONTRADICTED, NOT_DECIDED, Claim, Interval


def test_the_t_interval_over_seeds() -> None:
    # t(.975, 2) = 4.302653; the standard deviation of 1, 2, 3 is 1.
    mean, low, high, units = stats.over_seeds([1.0, 2.0, 3.0])
    assert (mean, units) == (2.0, 3)
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert stats.over_seeds([5.0]) == Interval(5.0, None, None, 1)
    assert stats.share_over_seeds([0.5, 0.9, 1.0]).high == 1.0


def test_the_bootstrap_has_the_normal_width_for_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=400)
    value, low, high, units = stats.bootstrap(lambda members: values[members].mean(), 400)
    half = 1.96 * values.std() / 20
    assert (value, units) == (pytest.approx(values.mean()), 400)
    assert (low, high) == (pytest.approx(value - half, abs=0.15 * half), pytest.approx(value + half, abs=0.15 * half))


@pytest.mark.parametrize(
    ("low", "high", "units", "verdict"),
    [
        (0.98, 0.99, 3, CONFIRMED),
        (0.96, 0.99, 3, NOT_DECIDED),
        (0.97, 0.99, 3, NOT_DECIDED),
        (0.5, 0.96, 3, CONTRADICTED),
        (0.98, 0.99, 2, NOT_DECIDED),
        (None, None, 1, NOT_DECIDED),
    ],
)
def test_the_rule(low: float | None, high: float | None, units: int, verdict: str) -> None:
    above = claim(Interval(0.975, low, high, units), above=0.97)
    assert above.verdict == verdict
    mirrored = Interval(-0.975, None if high is None else -high, None if low is None else -low, units)
    assert claim(mirrored, below=-0.97).verdict == verdict


def claim(ours: Interval, **bound: float) -> Claim:
    return Claim(claim="it keeps", paper="97 %", measure="accuracy", ours=ours, **bound)


@pytest.mark.parametrize("bounds", [{}, {"above": 0.0, "below": 1.0}])
def test_a_claim_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one bound"):
        claim(Interval(0.5, 0.4, 0.6, 3), **bounds)


def test_the_table() -> None:
    line = {"experiment": "toy", "rows": "toy/results.csv"}
    line |= claim(Interval(0.98765, 0.98, 0.99, 3), above=0.97).as_dict()
    table = verdicts.as_table([line])
    assert "| accuracy: 0.988 [0.98, 0.99] (claim: > 0.97) | 3 | **confirmed** | [csv](toy/results.csv) |" in table
    assert "[toy](toy/README.md)" in table
