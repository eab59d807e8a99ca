"""What a repair came to, as data; words for people are made of it in `keeptune.repair.words`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keeptune.repair.reading import Ends, Reading
from keeptune.repair.search import upper
from keeptune.stats import Interval
from keeptune.train.budget.certificate import Certificate


class Answer(StrEnum):
    """The answer of a repair."""

    REPAIRED = "repaired"
    """A candidate is certified to be within the budget, and loses no more than it may."""
    INCONCLUSIVE = "inconclusive"
    """The chosen candidate's certificate contains the budget."""
    NOT_REACHABLE = "not reachable"
    """No candidate within the budget loses so little; the nearest is given."""
    NOTHING = "nothing to repair"
    """The tuned model is certified to be within the budget as it is."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate that was read: a point of the frontier."""

    method: str
    strength: float
    reading: Reading
    forgotten: Interval
    """KL(base‖candidate), nats per token."""
    lost: Interval
    """Share of what was learned that it lost."""
    undone: Interval
    """Share of KL(base‖tuned) that it took back."""

    @classmethod
    def of(cls, method: str, strength: float, reading: Reading, ends: Ends) -> Point:
        """The point of a reading."""
        return cls(
            method=method,
            strength=strength,
            reading=reading,
            forgotten=reading.forgotten,
            lost=ends.lost(reading),
            undone=ends.undone(reading),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the raw sums by row."""
        task = self.reading.task_loss
        return {
            "method": self.method,
            "strength": self.strength,
            "kl": self.forgotten.as_dict(),
            "undone": self.undone.as_dict(),
            "lost": self.lost.as_dict(),
            "kl_to_tuned": self.reading.unlearned.as_dict(),
            "task_loss": None if task is None else task.as_dict(),
            "rows": {"kl": self.reading.kl, "kl_to_tuned": self.reading.own, "task": self.reading.task},
        }


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The chosen candidate on rows that nothing was chosen on."""

    answer: Answer

    point: Point
    certificate: Certificate
    result: str
    """What was saved, in words."""
    rank: int | None
    """Of the adapter that was saved; None for all weights."""


def best_within(points: list[Point], limit: float, most_lost: float) -> Point | None:
    """The candidate that lost least of those whose interval ends within the limit; None if all lost too much."""
    within = [point for point in points if upper(point.forgotten) <= limit and point.lost.value <= most_lost]
    return min(within, key=lambda point: point.lost.value, default=None)


def nearest(points: list[Point], most_lost: float) -> Point | None:
    """The candidate nearest to the base of those that lost no more than they may; None if there is none."""
    kept = [point for point in points if point.lost.value <= most_lost]
    return min(kept, key=lambda point: point.forgotten.value, default=None)
