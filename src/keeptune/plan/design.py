"""The runs of a pilot and their length, for the available time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keeptune.errors import ConfigError
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.train.config import KeepConfig

WEIGHTS = (0.5, 5.0)
"""λ of the pilot's runs with replay, a decade apart."""
ROUNDS = 2
"""How often a replay row is used, in the pilot and in the plan. The pilot cannot tell what more uses would do."""
LEAST_STEPS = 24
_READINGS = 4
# A share of the time for the fits, and for what the probe of three steps misjudged.
_RESERVE = 0.05
_LATE = 1.15


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of this machine, in seconds."""

    step: float
    """A step without replay."""
    replay_step: float
    """A step with replay."""
    reading: float
    """A drift reading."""
    fixed: float
    """The rest of a run: loading, the first reading, saving."""
    token: float
    """Sampling one token of replay text."""
    spent: float
    """Time spent to measure the pace."""


class Cell(NamedTuple):
    """One run of the pilot."""

    rank: int
    rate: float
    lambda_: float

    @property
    def name(self) -> str:
        """A name for the folder."""
        return f"rank{self.rank}-lambda{self.lambda_:g}-rate{self.rate:g}"

    def __str__(self) -> str:
        return f"rank {self.rank}, λ {self.lambda_:g}, learning rate {self.rate:g}"


@dataclass(frozen=True, kw_only=True)
class Design:
    """The pilot: the middle rank at every rate, then the λ and the other ranks at the best rate."""

    steps: int
    rates: tuple[float, ...]
    weights: tuple[float, ...]
    ranks: tuple[int, ...]

    @property
    def every(self) -> int:
        """Steps between readings."""
        return max(1, self.steps // _READINGS)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.rates) + len(self.weights) + len(self.ranks) - 1

    @property
    def rows(self) -> int:
        """Rows of the pool for training, if a step uses one row."""
        return -(-self.steps // ROUNDS) if self.weights else 1

    def at_rates(self) -> list[Cell]:
        """The runs that compare learning rates."""
        return [Cell(self.ranks[0], rate, 0.0) for rate in self.rates]

    def at_rate(self, rate: float) -> list[Cell]:
        """The runs after them. Replay comes before ranks, because it matters more for a plan."""
        held = [Cell(self.ranks[0], rate, weight) for weight in self.weights]
        return held + [Cell(rank, rate, 0.0) for rank in self.ranks[1:]]

    def seconds(self, pace: Pace, cell: Cell) -> float:
        """Seconds that a run will take."""
        step = pace.replay_step if cell.lambda_ else pace.step
        return pace.fixed + readings(self.every, self.steps) * pace.reading + self.steps * step

    def total(self, pace: Pace, settings: PlanSettings) -> float:
        """Seconds that the pilot will take after the probe."""
        cells = self.at_rates() + self.at_rate(self.rates[0])
        tokens = (METER_ROWS + self.rows * settings.batch_size) * settings.max_length
        return sum(self.seconds(pace, cell) for cell in cells) + tokens * pace.token

    def missing(self, settings: PlanSettings) -> list[str]:
        """What this pilot cannot tell, one note each."""
        notes = []
        if len(self.rates) < 2 and settings.learning_rate is None:
            notes.append(f"learning rate: not compared, {self.rates[0]:g} is the default")
        if len(self.ranks) < 2:
            notes.append(f"rank: not compared, {self.ranks[0]} is the middle rank")
        if not self.weights:
            notes.append("λ: no run had replay, so its cost is only bounded; the budget controller will set λ")
        return notes


def design(pace: Pace, settings: PlanSettings, *, most_steps: int) -> Design:
    """The fullest pilot with at least `LEAST_STEPS` steps per run within the minutes, and as many steps as they allow.

    No run makes more than `most_steps`, those of one pass over the data.

    Raises:
        ConfigError: not even one run fits.
    """
    left = (1 - _RESERVE) * 60 * settings.minutes - pace.spent
    for kind in _fullest_first(settings):
        steps = _most(kind, pace, settings, left, max(most_steps, LEAST_STEPS))
        if steps is not None:
            return Design(steps=steps, **kind)
    least = Design(steps=LEAST_STEPS, rates=settings.rates[:1], weights=(), ranks=settings.ranks[:1])
    needed = (least.total(pace, settings) + pace.spent) / (1 - _RESERVE) / 60
    takes = f"a step takes {pace.step:.2g} s, everything else {pace.spent + pace.fixed:.0f} s"
    enough = f"--minutes {max(1, math.ceil(needed * 1.1))} or more"
    what = f"{settings.minutes:g} minutes are too few for one pilot run of {LEAST_STEPS} steps: {takes}"
    raise ConfigError(what, f"give {enough}, smaller steps (--batch-size, --max-length), or a faster machine")


def late(spent: float, to_come: float, settings: PlanSettings) -> bool:
    """Whether a run would end long after the given minutes."""
    return spent + to_come > _LATE * 60 * settings.minutes


def readings(every: int, steps: int) -> int:
    """Readings of a run after its first step, by the rule of `KeepConfig`. The last step is always read."""
    keep = KeepConfig(drift_every=every)
    return sum(keep.reads_after(step, steps) for step in range(1, steps)) + 1


def _fullest_first(settings: PlanSettings) -> Sequence[dict[str, Any]]:
    """Rates, λ and ranks. Rates are dropped first, because a default is known; then ranks, which matter less than λ."""
    rates, ranks = settings.rates, settings.ranks
    one_rate = {"rates": rates[:1], "weights": WEIGHTS, "ranks": ranks}
    one_rank = {**one_rate, "ranks": ranks[:1]}
    return {**one_rate, "rates": rates}, one_rate, one_rank, {**one_rank, "weights": ()}


def _most(kind: dict[str, Any], pace: Pace, settings: PlanSettings, left: float, most: int) -> int | None:
    """The most steps that end in time, by bisection; None if even `LEAST_STEPS` do not."""
    low, high = LEAST_STEPS - 1, most
    while low < high:
        steps = (low + high + 1) // 2
        if Design(steps=steps, **kind).total(pace, settings) <= left:
            low = steps
        else:
            high = steps - 1
    return low if low >= LEAST_STEPS else None
