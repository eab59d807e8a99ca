"""Intervals of shares, and the exact McNemar test, by scipy."""

from __future__ import annotations

from typing import Any, Literal

from keeptune.stats.interval import LEVEL, Interval


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


def _share(count: int, items: int, method: Literal["wilson", "exact"]) -> Interval:
    if items < 1 or not 0 <= count <= items:
        raise ValueError(f"{count} of {items} items is no share")
    ends = _binomial(count, items).proportion_ci(LEVEL, method)
    return Interval(value=count / items, low=float(ends.low), high=float(ends.high), documents=items)


def _binomial(count: int, items: int) -> Any:
    from scipy.stats import binomtest  # noqa: PLC0415 — slow to import

    return binomtest(count, items)
