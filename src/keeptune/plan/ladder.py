"""Which run a pilot makes next: settings are screened in short runs, and the best one climbs to ever longer runs.

Each run has the budget and is complete: its schedule ends, and λ is steered to the end. So the ends of runs of several
lengths say what more steps bring under the budget. A part of a longer run would not: KL is allowed to be higher there.

Everything here is a pure function of the finished runs, so an interrupted pilot makes the same decisions again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from keeptune.plan.design import Cell, Design, Setting
from keeptune.plan.settings import LOWER_RATE
from keeptune.train.bounds import HIGHEST
from keeptune.train.budget.certificate import Verdict
from keeptune.train.readings import Reading

REPEATS = 4
"""Most runs of one setting and length, each with another order of the data."""
LOWER_RATES = 2
"""How often the rate is lowered if no setting keeps the budget."""
TARGET = 0.85
"""Certified KL of a run whose λ was right, as a share of the budget."""
# A first run whose KL missed that by more than this factor says where λ must start, and little else.
_MISSED = 1.35


class Stop(StrEnum):
    """Why a pilot makes no more runs."""

    TIME = "time"
    """The next run does not fit into the minutes."""
    MEASURED = "measured"
    """The longest run that may be planned has been made `REPEATS` times."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run of the pilot. Losses and KL are those of its end, nats per token."""

    cell: Cell
    task_loss: float
    kl: float
    """Certified, on rows that neither training nor λ saw."""
    verdict: Verdict
    kl_of_lambda: float
    """What λ led to, before the change of the weights was scaled to the budget."""
    lambda_: float
    """Geometric mean of λ after the first and after the last step."""
    step_seconds: float
    wall: float
    """Seconds from start to end."""
    memory: int
    """Peak memory in bytes: of the accelerator, or of the process so far."""
    rows: list[Reading]
    """Its readings."""

    @property
    def broken(self) -> bool:
        """Whether the certificate says so."""
        return self.verdict is Verdict.BROKEN

    def right_lambda(self, budget: float) -> float:
        """λ from which such a run would have met the budget, at least 1: KL falls about as 1/λ.

        Not below 1: a short run may keep the budget without replay, and a longer one from there would break it.
        """
        return max(self.lambda_ * self.kl_of_lambda / (TARGET * budget), 1.0)

    def seconds(self, steps: int) -> float:
        """Seconds that such a run of other length will take."""
        return max(self.wall + (steps - self.cell.steps) * self.step_seconds, 0.0)


def valid(done: Sequence[Outcome]) -> list[Outcome]:
    """The runs that count: the last attempt at each setting, length and order."""
    return list({(run.cell.setting, run.cell.steps, run.cell.order): run for run in done}.values())


def of(done: Sequence[Outcome], setting: Setting, steps: int | None = None) -> list[Outcome]:
    """The valid runs of a setting, of one length or of all, the shortest first."""
    found = [run for run in valid(done) if run.cell.setting == setting and steps in (None, run.cell.steps)]
    return sorted(found, key=lambda run: (run.cell.steps, run.cell.order))


def lengths(done: Sequence[Outcome], setting: Setting) -> list[int]:
    """The different steps of a setting's valid runs, ascending."""
    return sorted({run.cell.steps for run in of(done, setting)})


def mean_loss(runs: Sequence[Outcome]) -> float:
    """Mean task loss, nats per token."""
    return statistics.fmean(run.task_loss for run in runs)


def best(done: Sequence[Outcome]) -> Setting:
    """The setting with the lowest task loss at the longest length that it shares with the best one before it.

    A setting whose longest run broke the budget loses to one whose longest run did not; of two, the one with less KL.
    """
    first, *others = dict.fromkeys(run.cell.setting for run in done)
    for other in others:
        if _beats(done, other, first):
            first = other
    return first


def breaks(done: Sequence[Outcome], setting: Setting) -> bool:
    """Whether the setting's longest runs broke the budget, all of them."""
    return all(run.broken for run in of(done, setting, lengths(done, setting)[-1]))


def _beats(done: Sequence[Outcome], one: Setting, other: Setting) -> bool:
    ends = [of(done, setting, lengths(done, setting)[-1]) for setting in (one, other)]
    broken = [breaks(done, setting) for setting in (one, other)]
    if broken[0] != broken[1]:
        return broken[1]
    if all(broken):
        kl = [statistics.fmean(run.kl for run in runs) for runs in ends]
        return kl[0] < kl[1]
    shared = max(set(lengths(done, one)) & set(lengths(done, other)))
    return mean_loss(of(done, one, shared)) < mean_loss(of(done, other, shared))


def next_cell(
    done: Sequence[Outcome], design: Design, limit: int, fits: Callable[[Cell], bool], *, budget: float
) -> Cell | Stop:
    """The next run of the pilot, or why there is none.

    Args:
        limit: steps of the longest run that may be planned.
        fits: whether a run is already done, or ends within the minutes. The first runs are made in any case.
    """
    if cell := _screening(done, design, fits, budget):
        return cell
    if all(breaks(done, setting) for setting in {run.cell.setting for run in done}):
        return _lower_rate(done, design, fits, budget)
    setting = best(done)
    for plan in _climb(done, setting, limit):
        if fits(cell := _cell(done, *plan, budget=budget)):
            return cell
    top = lengths(done, setting)[-1]
    return Stop.MEASURED if top >= limit and len(of(done, setting, top)) >= REPEATS else Stop.TIME


def _climb(done: Sequence[Outcome], setting: Setting, limit: int) -> list[tuple[Setting, int, int]]:
    """Setting, steps and order of runs to make of the best setting, the most useful first.

    A second short run tells the noise, a longer one what more steps bring. Then repeats of the longest narrow the
    interval, and the next best setting at the same length tells whether the choice was right.
    """
    steps = lengths(done, setting)
    top = steps[-1]
    orders = {length: len(of(done, setting, length)) for length in steps}
    cells = [(setting, steps[0], 2)] if orders[steps[0]] < 2 else []
    if top < limit:
        # A last doubling that would fall just short of the limit goes up to it.
        cells.append((setting, limit if 2.5 * top > limit else 2 * top, 1))
    if orders[top] < 2:
        cells.append((setting, top, 2))
    if other := _runner_up(done, setting):
        cells.append((other, top, 1))
    return cells + [(setting, length, orders[length] + 1) for length in reversed(steps) if orders[length] < REPEATS]


def _runner_up(done: Sequence[Outcome], setting: Setting) -> Setting | None:
    """The best of the other settings, if it has not been run at the best one's length."""
    top = lengths(done, setting)[-1]
    others = [run for run in done if run.cell.setting != setting]
    if not others or breaks(others, other := best(others)) or lengths(others, other)[-1] >= top:
        return None
    return other


def _screening(done: Sequence[Outcome], design: Design, fits: Callable[[Cell], bool], budget: float) -> Cell | None:
    settings = [Setting(design.ranks[0], rate) for rate in design.rates]
    for place in range(len(design.rates) + len(design.ranks) - 1):
        if place == len(settings):
            rate = best([run for run in done if run.cell.steps == design.steps and run.cell.setting in settings]).rate
            settings += [Setting(rank, rate) for rank in design.ranks[1:]]
        tries = [run for run in done if run.cell[:4] == (*settings[place], design.steps, 1)]
        cell = _cell(done, settings[place], design.steps, 1, budget=budget)
        again = len(tries) == 1 and _far(tries[0].kl, TARGET * budget) and _far(cell.start, tries[0].cell.start)
        if (not tries or again) and (not done or fits(cell)):
            return cell
    return None


def _far(one: float, other: float) -> bool:
    return max(one / other, other / max(one, 1e-9)) > _MISSED


def _lower_rate(done: Sequence[Outcome], design: Design, fits: Callable[[Cell], bool], budget: float) -> Cell | Stop:
    """No setting keeps the budget: the same at a lower learning rate, whose steps shake KL up less."""
    rate = min(run.cell.rate for run in done)
    if rate < min(design.rates) * LOWER_RATE ** (LOWER_RATES - 0.5):
        return Stop.MEASURED
    steps = max(run.cell.steps for run in done)
    cell = _cell(done, Setting(design.ranks[0], float(f"{rate * LOWER_RATE:.2g}")), steps, 1, budget=budget)
    return cell if fits(cell) else Stop.TIME


def _cell(done: Sequence[Outcome], setting: Setting, steps: int, order: int, *, budget: float) -> Cell:
    """A run that starts from the λ that was right for the longest run before it that is no longer, to two digits."""
    near = [run for run in of(done, setting) if run.cell.steps <= steps] or list(done)[-1:]
    start = float(f"{min(near[-1].right_lambda(budget), HIGHEST):.2g}") if near else 1.0
    return Cell(*setting, steps, order, start)
