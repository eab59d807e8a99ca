"""p-values of verdicts that rest on intervals, and one rule for many of them: Holm's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keeptune.stats.interval import LEVEL, Interval, student


def p_outside(interval: Interval, least: float = -math.inf, most: float = math.inf) -> float:
    """Two-sided p of the hypothesis that the truth lies within `least` … `most`, by inverting the interval.

    p is below .05 exactly where the whole interval lies beyond. Other levels need the interval's shape: each half of it
    is taken for that of Student's t with few degrees of freedom, 2 to 5, since means of skewed documents have long
    tails (`benchmarks/bench_coverage.py` measures it). p is 1 where the value lies within the bounds, and where there
    is no interval. Prefer an exact p, such as `mcnemar`'s, if the verdict rests on that test.

    Args:
        interval: any 95 % interval: of a bootstrap, Student's t, Wilson, Wald.
        least, most: no drift within a noise floor is −floor, floor; a claim of "above b" is most = b; "below b" is
            least = b.
    """
    if interval.low is None or interval.high is None:
        return 1.0
    if interval.value > most:
        return _p(interval.value - most, interval.value - interval.low, interval.documents)
    if interval.value < least:
        return _p(least - interval.value, interval.high - interval.value, interval.documents)
    return 1.0


def p_apart(first: Interval, second: Interval) -> float:
    """Two-sided p of the hypothesis that two values are equal, from the intervals of each model alone.

    p is below .05 exactly where the intervals do not overlap, which is a stricter test than a paired one. 1 without
    intervals.
    """
    below, above = sorted((first, second), key=lambda interval: interval.value)
    if below.high is None or above.low is None:
        return 1.0
    halves = (below.high - below.value) + (above.value - above.low)
    return _p(above.value - below.value, halves, min(first.documents, second.documents))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method, in the given order.

    Each is multiplied by the number of p-values that are not smaller, and is at least the one before it in size, and at
    most 1 (Holm 1979, A simple sequentially rejective multiple test procedure). If every verdict of a report rests on
    an adjusted p below .05, the probability of any wrong verdict in the report is at most .05, also where they depend
    on each other.

    One rule for all reports: gather the p of every comparison that could have given a verdict (`p_outside`, `p_apart`,
    `mcnemar`); leave out those with too little evidence; adjust them together, once a report; a verdict needs both the
    whole interval beyond its bound and an adjusted p below `1 − LEVEL`. Say how many p-values were adjusted.

    Raises:
        ValueError: a p outside 0 … 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1: {list(p_values)}")
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _p(distance: float, half: float, units: int) -> float:
    """Two-sided p of a distance from the value, where `half` of it is that of the 95 % interval."""
    from scipy.special import stdtr  # noqa: PLC0415 — slow to import

    if half <= 0:
        return 0.0 if distance > 0 else 1.0
    freedom = min(max(units - 1, 1), 2 + units // 12, 5)
    return float(2 * stdtr(freedom, -student((1 + LEVEL) / 2, freedom) * distance / half))
