"""A value with its interval, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

Array = npt.NDArray[np.float64]

LEVEL = 0.95
MIN_DOCUMENTS = 12
"""Fewer documents are too few for a verdict: below, intervals hold the truth in less than 93 % of some kinds."""


class IntervalRow(TypedDict):
    """An `Interval` for JSON."""

    value: float
    low: float | None
    high: float | None
    documents: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 95 % interval; `low` and `high` are None when one document cannot give an interval."""

    value: float
    low: float | None
    high: float | None
    documents: int  # or items behind it

    def as_dict(self) -> IntervalRow:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "documents": self.documents}

    def ends(self) -> dict[str, Any]:
        """For JSON, without the number of documents: `value`, `low`, `high`."""
        return {"value": self.value, "low": self.low, "high": self.high}


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # noqa: PLC0415 — slow to import

    return float(stdtrit(freedom, share))


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
