"""Which candidate is chosen, and which is the nearest where none may be."""

from __future__ import annotations

from keeptune.repair.outcome import Point, best_within, nearest
from keeptune.repair.reading import Reading
from keeptune.stats import Interval

NO_READING = Reading(kl=[], kl_tokens=1, own=[], own_tokens=1, task={})


def point(kl: float, lost: float, half: float | None = 0.001) -> Point:
    low, high = (None, None) if half is None else (kl - half, kl + half)
    forgotten = Interval(value=kl, low=low, high=high, documents=12)
    share = Interval(value=lost, low=lost, high=lost, documents=12)
    about = {"method": f"{kl} {lost}", "strength": 0.5, "reading": NO_READING}
    return Point(**about, forgotten=forgotten, lost=share, undone=share)


def test_the_chosen_candidate_keeps_the_limit_with_its_whole_interval_and_lost_least() -> None:
    points = [point(0.019, 0.1), point(0.0195, 0.05), point(0.01, 0.2), point(0.03, 0.0), point(0.005, 0.6)]
    assert best_within(points, 0.02, 0.5) is points[0]
    assert best_within(points[2:], 0.02, 0.5) is points[2]
    assert best_within(points[3:], 0.02, 0.5) is None
    assert best_within([point(0.01, 0.1, None)], 0.02, 0.5) is not None
    assert best_within([], 0.02, 0.5) is None


def test_the_nearest_lost_no_more_than_it_may() -> None:
    points = [point(0.04, 0.1), point(0.03, 0.4), point(0.01, 0.6)]
    assert nearest(points, 0.5) is points[1]
    assert nearest(points, 0.05) is None
