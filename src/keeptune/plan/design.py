"""How long things take on this machine, and the screening runs that fit: which rates and ranks, and how many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from keeptune.errors import ConfigError
from keeptune.plan.settings import HELD_OUT_ROWS, METER_ROWS, PlanSettings, reading_every
from keeptune.train.config import CERTIFICATE_ROWS, KeepConfig

ROUNDS = 2
"""How often a replay row is used in the planned run."""
LEAST_STEPS = 16
CERTIFICATE_READINGS = CERTIFICATE_ROWS * METER_ROWS / (METER_ROWS + HELD_OUT_ROWS)
"""What a certificate costs, in readings."""
PASSES = 3
"""Most passes over the data in a pilot run or a plan."""
# Shares of the minutes: for writing the pool, and for the screening runs. Longer runs and repeats take the rest.
_POOL_SHARE = 0.15
_SCREENING_SHARE = 0.25
# Rows of the pilot's pool beside those that drift is read on. A certificate takes at most a quarter of them.
_LEAST_ROWS, _MOST_ROWS = 64, 4 * CERTIFICATE_ROWS * METER_ROWS
# As the certificate takes at most a quarter, it has all its rows beside as many as these.
_PLANNED_ROWS = 3 * CERTIFICATE_ROWS * METER_ROWS


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of this machine, in seconds."""

    step: float
    """A step with replay."""
    reading: float
    """A reading of drift and held-out loss."""
    fixed: float
    """The rest of a run: loading, the first reading, saving."""
    token: float
    """Sampling one token of replay text."""
    spent: float
    """Time spent to measure the pace."""

    def run(self, steps: int) -> float:
        """Seconds that a run of the pilot will take, by the pace of the probe."""
        return self.fixed + (readings(steps) + CERTIFICATE_READINGS) * self.reading + steps * self.step


class Setting(NamedTuple):
    """What a pilot compares."""

    rank: int
    rate: float

    def __str__(self) -> str:
        return f"rank {self.rank}, learning rate {self.rate:g}"


class Cell(NamedTuple):
    """One run of the pilot; see `PlanSettings.tune_settings` for the fields."""

    rank: int
    rate: float
    steps: int
    order: int
    start: float

    @property
    def setting(self) -> Setting:
        """Rank and rate."""
        return Setting(self.rank, self.rate)

    def name(self, budget: float) -> str:
        """A name for the folder."""
        parts = f"rank{self.rank}-rate{self.rate:g}-steps{self.steps}-order{self.order}-lambda{self.start:g}"
        return f"budget{budget:g}-{parts}"

    def __str__(self) -> str:
        return f"{self.setting}, {self.steps} steps, data order {self.order}, λ from {self.start:g}"


@dataclass(frozen=True, kw_only=True)
class Design:
    """The screening: the middle rank at every rate, then the other ranks at the best rate, each for `steps` steps."""

    steps: int
    rates: tuple[float, ...]
    ranks: tuple[int, ...]
    pool_rows: int
    """Rows of the replay pool that all runs share."""

    @property
    def runs(self) -> int:
        """Number of screening runs. The first one finds λ and is mostly made twice."""
        return len(self.rates) + len(self.ranks)

    def missing(self, settings: PlanSettings) -> list[str]:
        """What these runs do not compare, one note each."""
        notes = []
        if len(self.rates) < 2 and settings.learning_rate is None:
            notes.append(f"learning rate: not compared, {self.rates[0]:g} is the default; more --minutes compare two")
        if len(self.ranks) < 2:
            notes.append(f"rank: not compared, {self.ranks[0]} is the middle rank; more --minutes compare three")
        return notes


def design(pace: Pace, settings: PlanSettings, *, most_steps: int) -> Design:
    """The fullest screening within its share of the minutes, and as many steps as that allows.

    No run makes more than `most_steps`.

    Raises:
        ConfigError: not even two runs of `LEAST_STEPS` steps fit into the minutes.
    """
    left = 60 * settings.minutes - pace.spent
    least = min(LEAST_STEPS, most_steps)
    rows = int(_POOL_SHARE * left / (pace.token * settings.max_length))
    rows = METER_ROWS + min(max(rows, _LEAST_ROWS), _MOST_ROWS)
    left -= rows * settings.max_length * pace.token
    for rates, ranks in _fullest_first(settings):
        found = Design(steps=least, rates=rates, ranks=ranks, pool_rows=rows)
        share = _SCREENING_SHARE * left / found.runs
        if pace.run(least) <= share:
            steps = _most(partial(_ends_within, pace, share), least, most_steps)
            return replace(found, steps=steps)
    if found.runs * pace.run(least) <= left:
        return found
    needed = (60 * settings.minutes - left + found.runs * pace.run(least)) / 60
    takes = f"a step takes {pace.step:.2g} s, everything else {60 * needed - found.runs * least * pace.step:.0f} s"
    enough = f"--minutes {max(1, math.ceil(needed * 1.2))} or more"
    what = f"{settings.minutes:g} minutes are too few for two pilot runs of {least} steps: {takes}"
    raise ConfigError(what, f"give {enough}, smaller steps (--batch-size, --max-length), or a faster machine")


def longest(pace: Pace, settings: PlanSettings, pass_steps: int) -> int:
    """Steps of the longest run that may be planned: `PASSES` passes over the data, or what fits into the hours.

    Raises:
        ConfigError: no run fits into the hours.
    """
    most = PASSES * pass_steps
    if settings.hours is None:
        return most
    hours = 3600 * settings.hours
    if run_seconds(pace, settings, 1, pace.step) > hours:
        raise ConfigError(f"no run fits into {settings.hours:g} hours", "give more --hours")
    return _most(lambda steps: run_seconds(pace, settings, steps, pace.step) <= hours, 1, most)


def replay_tokens(settings: PlanSettings, steps: int) -> int:
    """Replay tokens of the planned run, beside those that are kept out of training."""
    return max(-(-steps // ROUNDS) * settings.batch_size, _PLANNED_ROWS) * settings.max_length


def run_seconds(pace: Pace, settings: PlanSettings, steps: int, step: float) -> float:
    """Seconds of the planned run at `step` seconds each, with the text for training, readings and certificate."""
    kept = METER_ROWS * (1 + CERTIFICATE_ROWS) * settings.max_length
    return pace.run(steps) + steps * (step - pace.step) + (kept + replay_tokens(settings, steps)) * pace.token


def readings(steps: int) -> int:
    """Readings of a run after its first step, by the rule of `KeepConfig`. The last step is always read."""
    keep = KeepConfig(drift_every=reading_every(steps))
    return sum(keep.reads_after(step, steps) for step in range(1, steps)) + 1


def _fullest_first(settings: PlanSettings) -> Sequence[tuple[tuple[float, ...], tuple[int, ...]]]:
    """Rates and ranks. Ranks are dropped first: under a budget they matter less than the rate."""
    rates, ranks = settings.rates, settings.ranks
    return (rates, ranks), (rates, ranks[:1]), (rates[:1], ranks[:1])


def _ends_within(pace: Pace, seconds: float, steps: int) -> bool:
    return pace.run(steps) <= seconds


def _most(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The most steps that fit, by bisection; `least` if no more do."""
    while least < most:
        steps = (least + most + 1) // 2
        if fits(steps):
            least = steps
        else:
            most = steps - 1
    return least
