"""Intervals against known values; verdicts by the rule; the table that tells them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t

import verdicts
from common import stats
from common.papers import Figure, Paper
from common.stats import Claim, Interval, Verdict, judged
from keeptune.errors import ConfigError
from keeptune.stats import bootstrap_ratio

LINE = {"experiment": "toy_continual", "rows": "toy_continual/results.csv"}
PAPER = Paper(title="A paper", figures=(Figure(name="Figure 2", setting="7 B", experiments=("toy_continual",)),))


def test_the_t_interval_over_seeds() -> None:
    # t(.975, 2) = 4.302653; the standard deviation of 1, 2, 3 is 1.
    mean, low, high, units = stats.over_seeds([1.0, 2.0, 3.0])
    assert (mean, units) == (2.0, 3)
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert stats.over_seeds([5.0]) == Interval(5.0, None, None, 1)
    assert stats.over_seeds([0.5, 0.9, 1.0], 0.0, 1.0).high == 1.0
    assert stats.over_seeds([-3.0, 0.9, 1.0], most=1.0)[1:3] == (pytest.approx(-6.033, abs=0.001), 1.0)


def test_the_bootstrap_of_a_mean_is_that_of_its_values() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    found = stats.bootstrap(lambda members: values[members].mean(), 40)
    expected = bootstrap_ratio(values, np.ones(40))
    assert found[:3] == pytest.approx((expected.value, expected.low, expected.high))
    assert found.units == 40


def test_the_bootstrap_of_a_spread_has_the_width_of_normal_theory() -> None:
    # The logarithm of a standard deviation of n normal values has a standard error of 1/√(2n).
    values = np.random.default_rng(2).normal(size=300)
    value, low, high, _ = stats.bootstrap(lambda members: values[members].std(), 300)
    assert low is not None
    assert high is not None
    assert (high - low) / 2 / value == pytest.approx(1.96 / 600**0.5, rel=0.2)


def test_few_members_have_no_interval() -> None:
    values = np.arange(9.0)
    assert stats.bootstrap(lambda members: values[members].mean(), 9) == Interval(4.0, None, None, 9)
    few = claim(stats.bootstrap(lambda members: values[members].mean(), 9), above=0.0)
    assert (few.verdict, few.p) == (Verdict.NOT_DECIDED, None)


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
    assert "; bases of unequal loss | 3 | **not tested** |" in verdicts.as_row({**LINE, **judged([found])[0]}, "")


def claim(ours: Interval, paper: str | None = "97 %", **given: Any) -> Claim:
    return Claim(claim="it keeps", paper=paper, measure="accuracy", ours=ours, **given)


@pytest.mark.parametrize("bounds", [{}, {"above": 0.0, "below": 1.0}])
def test_a_claim_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one bound"):
        claim(Interval(0.5, 0.4, 0.6, 3), **bounds)


def test_the_papers_claims_and_our_own_findings_have_a_table_each() -> None:
    ours = Interval(0.98765, 0.98, 0.99, 3)
    lines = judged([claim(ours, paper, above=0.97) for paper in (None, "97 %")])
    table = verdicts.as_tables([LINE | line for line in lines], [PAPER])
    of_papers, _, our_own = table.partition("## Our own findings")
    measured = "accuracy: 0.988 [0.98, 0.99] (claim: > 0.97) | 3 | **confirmed** |"
    assert f"| it keeps | 97 % | {measured}" in of_papers
    assert f"| it keeps | {measured}" in our_own
    assert table.count(measured) == 2
    set_up = ".13 M parameters, 600–1,500 steps of 128 rows a task"
    assert f"| **Figure 2** | *7 B* | *{set_up}" in of_papers
    assert f"| **toy_continual** | *{set_up}" in our_own
    assert "2 comparisons were made, 1 in the first table and 1 in the second. 0 of them" in table


def test_a_papers_claim_of_an_experiment_without_a_figure_is_refused() -> None:
    lines = judged([claim(Interval(0.98, 0.97, 0.99, 3), above=0.9)])
    with pytest.raises(ConfigError, match="no figure for toy_continual"):
        verdicts.as_tables([LINE | line for line in lines], [])


def test_a_claim_among_many_needs_a_smaller_p() -> None:
    # The bound is 1.2 half-widths away.
    weak, strong = Interval(1.0, 1 / 6, 11 / 6, 3), Interval(1.0, 0.99, 1.01, 3)
    alone = judged([claim(weak, above=0.0)])[0]
    assert (alone["verdict"], alone["comparisons"]) == (Verdict.CONFIRMED, 1)
    assert alone["p"] == alone["p_holm"] == pytest.approx(2 * t.sf(1.2 * t.ppf(0.975, 2), 2))
    lines = judged([claim(weak, above=0.0), claim(strong, above=0.0), claim(weak, below=0.0)])
    assert [line["verdict"] for line in lines] == [Verdict.NOT_DECIDED, Verdict.CONFIRMED, Verdict.NOT_DECIDED]
    assert [line["comparisons"] for line in lines] == [3, 3, 3]
    assert lines[0]["p_holm"] == pytest.approx(2 * lines[0]["p"])
    assert "after Holm's adjustment (" not in verdicts.as_row(LINE | lines[1], "")
    assert "; p 0.071 after Holm's adjustment | 3 |" in verdicts.as_row(LINE | lines[0], "")
    assert "2 of them would have a verdict" in verdicts.compared([LINE | line for line in lines], [])


def test_what_cannot_have_a_verdict_is_not_compared() -> None:
    ours = Interval(1.0, 0.9, 1.1, 3)
    lines = judged(
        [
            claim(ours, above=0.0),
            claim(ours, above=0.0, untested="another set-up"),
            claim(ours, above=0.0, runs=1),
            claim(ours, above=0.0, runs=2),
            claim(Interval(1.0, None, None, 3), above=0.0),
        ]
    )
    assert [line["p"] is not None for line in lines] == [True, False, False, False, False]
    assert lines[0]["comparisons"] == 1
    assert lines[0]["p"] == lines[0]["p_holm"]
