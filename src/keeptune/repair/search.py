"""The strength at which a candidate just keeps the budget: bisection, guided by KL ≈ curve · strength².

Every reading of the search is a point of the frontier, so none is wasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from keeptune.stats import Interval

ROOM = 0.95
"""Candidates are held to this share of the budget, so that a certificate on other rows has room for its interval."""
GRID = (0.75, 0.5, 0.25)
"""Strengths that are always read, for the picture."""
_MOST_READS = 6
_CLOSE = 0.05
"""A search ends where KL is so near below the limit, or the strength is known so well, as shares."""
_INSIDE = 0.1


def upper(kl: Interval) -> float:
    """The end of an interval that must lie within the budget; the value where there is no interval."""
    return kl.value if kl.high is None else kl.high


def strongest_within(read: Callable[[float], float], ends: tuple[float, float], limit: float) -> float | None:
    """The largest strength at which a reading is at most `limit`, up to 5 % of it, in few readings.

    Args:
        read: the upper end of KL(base‖candidate) at a strength of 0 … 1; it is called at most once for a strength.
        ends: the readings at 0 and at 1.
        limit: nats per token.

    Returns:
        None if no strength that was read keeps the limit, the base itself included: rounding alone is above it.
    """
    if ends[1] <= limit:
        return 1.0
    known = {0.0: ends[0], 1.0: ends[1], **{strength: read(strength) for strength in GRID}}
    before: tuple[float, float] | None = None
    for _ in range(_MOST_READS):
        within = [strength for strength, kl in known.items() if kl <= limit]
        if not within:
            return None
        low = max(within)
        high = min(strength for strength in known if strength > low)
        if known[low] >= (1 - _CLOSE) * limit or high - low <= _CLOSE * high:
            return low
        guess = _between(low, high, known[low], known[high], limit)
        if before is not None and (low == before[0] or high == before[1]):
            guess = (low + high) / 2  # one end stays: the curve is no parabola here
        before = low, high
        known[guess] = read(guess)
    return max(strength for strength, kl in known.items() if kl <= limit)


def _between(low: float, high: float, at_low: float, at_high: float, limit: float) -> float:
    """Where the root of KL, as a line between two strengths, meets that of a bit less than the limit."""
    goal = math.sqrt((1 - _CLOSE / 2) * limit)
    first, last = math.sqrt(max(at_low, 0.0)), math.sqrt(at_high)
    share = (goal - first) / (last - first) if last > first else 0.5
    return low + (high - low) * min(max(share, _INSIDE), 1 - _INSIDE)
