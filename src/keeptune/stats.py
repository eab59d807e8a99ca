"""The statistics that everything shares: bootstrap, Wilson and Clopper–Pearson intervals, McNemar's test.

The bootstrap resamples documents (or items), because the tokens of one document are not independent.

Shapes: D documents, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
MIN_DOCUMENTS = 10
"""Fewer documents are too few for a verdict."""
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 95 % interval; `low` and `high` are None when one document cannot give an interval."""

    value: float
    low: float | None
    high: float | None
    documents: int  # or items behind it

    @classmethod
    def of_resamples(
        cls, value: float, resampled_R: Array, documents: int, method: Literal["linear", "nearest"] = "linear"
    ) -> Interval:
        """The percentile interval of a statistic's resampled values, fp64 [R].

        `method` says how `numpy.quantile` interpolates; `nearest` where resampled values may be infinite.
        """
        if documents == 1:
            return cls(value=float(value), low=None, high=None, documents=1)
        low, high = np.quantile(resampled_R, TAILS, method=method)
        return cls(value=float(value), low=float(low), high=float(high), documents=documents)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def ends(self) -> dict[str, Any]:
        """For JSON, without the number of documents: `value`, `low`, `high`."""
        return {"value": self.value, "low": self.low, "high": self.high}


def resampled_counts(documents: int, seed: int = 0) -> Array:
    """How often each document occurs in each of 2 000 resamples: fp64 [R, D].

    `counts @ sums` resamples sums over documents. Statistics of the same documents and seed are paired.
    """
    even_D = np.full(documents, 1 / documents)
    return np.random.default_rng(seed).multinomial(documents, even_D, size=RESAMPLES).astype(np.float64)


def bootstrap_ratio(numerator_D: Array, denominator_D: Array, seed: int = 0) -> Interval:
    """Σ numerator / Σ denominator over documents, with a 95 % percentile interval from 2 000 paired resamples.

    With summed losses above and token counts below it is a mean per token. With the sums of two models it is their
    ratio, paired by document. Both are fp64 [D], one number a document; the sum of the denominators is positive.
    Raises `ValueError` for no documents, or lengths that differ.
    """
    if numerator_D.shape != denominator_D.shape or numerator_D.ndim != 1 or not len(numerator_D):
        raise ValueError(f"need one number a document in both: {numerator_D.shape} and {denominator_D.shape}")
    value, counts_RD = numerator_D.sum() / denominator_D.sum(), resampled_counts(len(numerator_D), seed)
    return Interval.of_resamples(value, (counts_RD @ numerator_D) / (counts_RD @ denominator_D), len(numerator_D))


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float], units: int, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Any statistic of some units, with the 95 % percentile interval of resamples of the units.

    `statistic` maps indices of units, which may repeat, int64 [units], to a float. No units raise `ValueError`.
    """
    if units < 1:
        raise ValueError("a bootstrap needs one unit or more")
    generator = np.random.default_rng(seed)
    drawn_R = np.array([statistic(generator.integers(units, size=units)) for _ in range(resamples)], dtype=np.float64)
    return Interval.of_resamples(statistic(np.arange(units)), drawn_R, units)


def wilson(count: int, items: int) -> Interval:
    """`count / items` with the 95 % Wilson interval, which has a width also at 0 and 1.

    Raises `ValueError` for no items, or a count that is not within 0 … items.
    """
    return _share(count, items, "wilson")


def clopper_pearson(count: int, items: int) -> Interval:
    """`count / items` with the exact 95 % interval. Raises `ValueError` as `wilson` does."""
    return _share(count, items, "exact")


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of the exact McNemar test: that so uneven a split of the changed items is chance.

    Only the first model has the `lost` items right, only the second the `gained`. Raises `ValueError` below 0.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"counts cannot be negative: {lost} and {gained}")
    return float(_binomial(min(lost, gained), lost + gained).pvalue) if lost + gained else 1.0


def p_outside(interval: Interval, least: float = -math.inf, most: float = math.inf) -> float:
    """Two-sided p of the hypothesis that the truth lies within `least` … `most`, by inverting the interval.

    p is below .05 exactly where the whole interval lies beyond. Other levels need the interval's shape: each half of it
    is that of Student's t with n − 1 degrees of freedom, which `benchmarks/bench_coverage.py` measures. p is 1 where
    the value lies within the bounds, and where there is no interval. Prefer an exact p, such as `mcnemar`'s, if the
    verdict rests on that test.

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
    from scipy.special import stdtr, stdtrit  # noqa: PLC0415 — slow to import

    if half <= 0:
        return 0.0 if distance > 0 else 1.0
    freedom = max(units - 1, 1)
    return float(2 * stdtr(freedom, -stdtrit(freedom, TAILS[1]) * distance / half))


def _share(count: int, items: int, method: Literal["wilson", "exact"]) -> Interval:
    if items < 1 or not 0 <= count <= items:
        raise ValueError(f"{count} of {items} items is no share")
    ends = _binomial(count, items).proportion_ci(LEVEL, method)
    return Interval(value=count / items, low=float(ends.low), high=float(ends.high), documents=items)


def _binomial(count: int, items: int) -> Any:
    from scipy.stats import binomtest  # noqa: PLC0415 — slow to import

    return binomtest(count, items)


def format_ends(
    low: float | None, high: float | None, form: str = ".4f", number: Callable[[float, str], str] = format
) -> str:
    """`[0.027, 0.036]`, or an empty string where there is no interval."""
    return "" if low is None or high is None else f"[{number(low, form)}, {number(high, form)}]"


def format_interval(
    interval: Mapping[str, Any],
    form: str = ".4f",
    *,
    ends: str | None = None,
    scale: float = 1,
    separator: str = " ",
    number: Callable[[Any, str], str] = format,
) -> str:
    """`0.031 [0.027, 0.036]` from `value`, `low` and `high`; the value alone where there is no interval.

    `form` is a Python format, `ends` another one for both ends, and `number` formats a single number. The numbers are
    multiplied by `scale`: 100 shows shares in per cent.
    """
    value, low, high = (None if interval[end] is None else scale * interval[end] for end in ("value", "low", "high"))
    shown = format_ends(low, high, ends or form, number)
    return number(value, form) + (separator + shown if shown else "")


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` places, spread evenly over 0 … total − 1."""
    count = min(total, count)
    return [place * total // count for place in range(count)]
