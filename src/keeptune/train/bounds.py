"""Bounds on a run: how it may be forecast to end (`--stop-if-forecast kl=0.05`), and where a budget may move λ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from keeptune.errors import ConfigError

LOWEST, HIGHEST = 1e-3, 1e2
"""Of λ, where a budget moves it."""
START = 0.07
"""λ of the first step times the budget, in nats."""

Measure = Literal["l_ft", "l_f_rise", "kl"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
_EXAMPLES = "write --stop-if-forecast kl=0.05, l_f_rise=0.1 or l_ft=1.8 (nats per token)"


class ForecastBound(NamedTuple):
    """The most that a measure may be forecast to end at, nats per token."""

    measure: Measure
    limit: float

    def __str__(self) -> str:
        return f"{self.measure} ≤ {self.limit:g}"


def first_lambda(budget: float) -> float:
    """Where a budget's λ starts if nothing else is asked for.

    The λ whose run ends at a KL of K was .03/K to .06/K for SmolLM2, and .07/K to .3/K for small decoders (lab/LOG.md).
    """
    return min(max(START / budget, LOWEST), HIGHEST)


def parse_bounds(given: Sequence[str]) -> list[ForecastBound]:
    """`["kl=0.05", "l_ft=1.8"]` → bounds.

    Raises:
        ConfigError: an unknown measure, no number, a bound given twice, or one that nothing can meet.
    """
    bounds: dict[str, ForecastBound] = {}
    for entry in given:
        bound = _parse(entry)
        if bound.measure in bounds:
            raise ConfigError(f"--stop-if-forecast {entry}: {bound.measure} is bounded twice", "keep one of them")
        bounds[bound.measure] = bound
    return list(bounds.values())


def _parse(entry: str) -> ForecastBound:
    measure, separator, number = entry.partition("=")
    if not separator or measure not in MEASURES:
        raise ConfigError(
            f"--stop-if-forecast {entry} names no measure that is forecast ({', '.join(MEASURES)})", _EXAMPLES
        )
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ConfigError(f"--stop-if-forecast {entry}: {number!r} is no number", _EXAMPLES)
    if measure != "l_f_rise" and limit < 0:
        raise ConfigError(f"--stop-if-forecast {entry}: no run ends with a {measure} below 0", "give 0 or more")
    return ForecastBound(measure, limit)
