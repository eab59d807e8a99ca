"""Numbers and tables as text, for the READMEs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.stats import Interval


def format_interval(interval: Interval | None, digits: int = 3, *, sign: str = "", none: str = "not reached") -> str:
    """An interval for a table, such as `0.113 [0.101, 0.125]`; `none` if there is no value.

    Args:
        sign: `+` to write the sign of positive numbers too.
    """
    if interval is None:
        return none
    value, low, high = (None if end is None else f"{end:{sign}.{digits}f}" for end in interval[:3])
    return f"{value}" if low is None or high is None else f"{value} [{low}, {high}]"


def format_count(interval: Interval | None, none: str = "–") -> str:
    """A mean of steps or other counts, without its interval."""
    return none if interval is None else f"{interval.value:.0f}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rule = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)])
