"""Intervals against known values; verdicts by the rule; the table that tells them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import verdicts
from common import stats
from common.stats import Claim, Interval, Verdict

LINE = {"experiment": "toy", "rows": "toy/results.csv"}


def test_the_t_interval_over_seeds() -> None:
    # t(.975, 2) = 4.302653; the standard deviation of 1, 2, 3 is 1.
    mean, low, high, units = stats.over_seeds([1.0, 2.0, 3.0])
    assert (mean, units) == (2.0, 3)
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert stats.over_seeds([5.0]) == Interval(5.0, None, None, 1)
    assert stats.over_seeds([0.5, 0.9, 1.0], 0.0, 1.0).high == 1.0
    assert stats.over_seeds([-3.0, 0.9, 1.0], most=1.0)[1:3] == (pytest.approx(-6.033, abs=0.001), 1.0)


def test_the_bootstrap_has_the_normal_width_for_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=400)
    value, low, high, units = stats.bootstrap(lambda members: values[members].mean(), 400)
    half = 1.96 * values.std() / 20
    assert (value, units) == (pytest.approx(values.mean()), 400)
    assert (low, high) == (pytest.approx(value - half, abs=0.15 * half), pytest.approx(value + half, abs=0.15 * half))


@pytest.mark.parametrize(
    ("low", "high", "units", "verdict"),
    [
        (0.98, 0.99, 3, Verdict.CONFIRMED),
        (0.96, 0.99, 3, Verdict.NOT_DECIDED),
        (0.97, 0.99, 3, Verdict.NOT_DECIDED),
        (0.5, 0.96, 3, Verdict.CONTRADICTED),
        (0.98, 0.99, 2, Verdict.NOT_DECIDED),
        (None, None, 1, Verdict.ONE_RUN),
    ],
)
def test_the_rule(low: float | None, high: float | None, units: int, verdict: Verdict) -> None:
    above = claim(Interval(0.975, low, high, units), above=0.97)
    assert above.verdict == verdict
    mirrored = Interval(-0.975, None if high is None else -high, None if low is None else -low, units)
    assert claim(mirrored, below=-0.97).verdict == verdict


@pytest.mark.parametrize(("runs", "verdict"), [(1, Verdict.ONE_RUN), (2, Verdict.NOT_DECIDED), (3, Verdict.CONFIRMED)])
def test_many_documents_of_one_run_are_one_run(runs: int, verdict: Verdict) -> None:
    assert claim(Interval(0.985, 0.98, 0.99, 40), above=0.97, runs=runs).verdict == verdict


def test_a_claim_that_the_set_up_does_not_test_has_no_verdict() -> None:
    found = claim(Interval(0.985, 0.98, 0.99, 3), above=0.97, untested="bases of unequal loss")
    assert found.verdict == Verdict.NOT_TESTED
    assert "; bases of unequal loss | 3 | **not tested** |" in verdicts.as_row({**LINE, **found.as_dict()}, "")


def claim(ours: Interval, paper: str | None = "97 %", **given: Any) -> Claim:
    return Claim(claim="it keeps", paper=paper, measure="accuracy", ours=ours, **given)


@pytest.mark.parametrize("bounds", [{}, {"above": 0.0, "below": 1.0}])
def test_a_claim_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one bound"):
        claim(Interval(0.5, 0.4, 0.6, 3), **bounds)


def test_the_papers_claims_and_our_own_findings_have_a_table_each() -> None:
    ours = Interval(0.98765, 0.98, 0.99, 3)
    table = verdicts.as_table([LINE | claim(ours, paper, above=0.97).as_dict() for paper in (None, "97 %")])
    of_papers, _, our_own = table.partition("## Our own findings")
    measured = "accuracy: 0.988 [0.98, 0.99] (claim: > 0.97) | 3 | **confirmed** | [csv](toy/results.csv) |"
    assert f"| [toy](toy/README.md) | it keeps | 97 % | {measured}" in of_papers
    assert f"| [toy](toy/README.md) | it keeps | {measured}" in our_own
    assert table.count(measured) == 2
