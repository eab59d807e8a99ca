"""The search over strengths on curves of many shapes: within the limit, near it, in few readings."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from keeptune.repair.search import GRID, strongest_within

CURVES: dict[str, Callable[[float], float]] = {
    "parabola": lambda s: 0.1 * s**2,
    "parabola with a floor": lambda s: 0.002 + 0.1 * s**2,
    "line": lambda s: 0.1 * s,
    "square root": lambda s: 0.1 * s**0.5,
    "steep at the end": lambda s: 0.1 * s**8,
    "step": lambda s: 0.1 * (s > 0.37),
    "steps": lambda s: 0.1 * math.floor(s * 16) / 16,
    "wave": lambda s: 0.1 * s**2 + 0.004 * math.sin(12 * s),
}


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.03, 0.09])
@pytest.mark.parametrize("name", CURVES)
def test_the_strength_keeps_the_limit_and_is_near_it(name: str, limit: float) -> None:
    curve, read = CURVES[name], dict[float, float]()

    def reading(strength: float) -> float:
        assert strength not in read, "read twice"
        read[strength] = curve(strength)
        return read[strength]

    found = strongest_within(reading, (curve(0.0), curve(1.0)), limit)
    assert len(read) <= len(GRID) + 6
    if curve(0.0) > limit:
        assert found is None or read[found] <= limit
        return
    assert found is not None
    assert curve(found) <= limit
    if name in ("parabola", "parabola with a floor", "line") and limit > 0.002:
        assert curve(found) >= 0.9 * limit


def test_no_reading_is_spent_on_an_end_that_keeps_the_limit() -> None:
    def read(strength: float) -> float:
        raise AssertionError(strength)

    assert strongest_within(read, (0.0, 0.01), 0.02) == 1.0


def test_a_base_beyond_the_limit_is_said() -> None:
    assert strongest_within(lambda strength: 0.05, (0.05, 0.1), 0.02) is None
