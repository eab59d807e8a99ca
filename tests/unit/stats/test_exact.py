"""Intervals of shares and McNemar's test, against sums by hand."""

from __future__ import annotations

import math

import pytest
from scipy.stats import beta

from keeptune.stats import clopper_pearson, mcnemar, wilson


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 5), (0, 6), (45, 20), (700, 640)])
def test_mcnemar_is_the_sum_of_binomial_terms(lost: int, gained: int) -> None:
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


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
