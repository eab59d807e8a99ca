"""What a planned run will come to, from the ends of the pilot's runs of the same setting: 90 % intervals.

    task loss after N steps = m − CARRY · s · log2(N / n),    s = (p − m) / log2(n / q)

m is the mean after the longest runs' n steps, p after the q steps of those two lengths shorter, and s what a doubling
of the steps brought. The variance is that of a new run and of both means, and (`SPREAD` · s · log2(N / n))² for the
bend of the curve. `CARRY`, `SPREAD` and the priors were set on the runs in benchmarks/results/plan_tuning.json; how
often the intervals hold the outcome is measured on other data by benchmarks/bench_plan.py.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from keeptune.errors import ConfigError
from keeptune.plan.design import Setting
from keeptune.plan.ladder import TARGET, Outcome, best, breaks, lengths, mean_loss, of

INTERVAL = 0.9
WIDEST = 0.15
"""The longest run is planned whose task loss is foretold within this many nats per token on either side."""
FARTHEST = 4
"""No plan has more than this multiple of the longest pilot run's steps."""
CARRY, SPREAD = 0.9, 0.3
_NOISE, _KL_SPREAD, _PRIOR_RUNS = 0.015, 0.12, 4
"""Prior spread over data orders of task loss, nats per token, and of log KL; and its weight in degrees of freedom."""
_STEPS_A_DOUBLING = 4


class Prediction(NamedTuple):
    """A value with its 90 % interval, nats per token."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


class Plan(NamedTuple):
    """The setting and length to run, and what to expect."""

    setting: Setting
    steps: int
    task_loss: Prediction
    kl: Prediction


def plan_from(done: Sequence[Outcome], limit: int, budget: float) -> Plan:
    """The best setting, and the longest run of it that can be foretold within `WIDEST`.

    Where more steps did not lower the task loss, the length with the lowest is planned.

    Raises:
        ConfigError: every setting broke the budget.
    """
    setting = best(done)
    if breaks(done, setting):
        least = min(run.kl for run in of(done, setting))
        what = f"no run of the pilot kept KL ≤ {budget:g} nats per token; the nearest, {setting}, reached {least:.3g}"
        raise ConfigError(what, f"give --budget {_up(least / TARGET):g}, more --minutes, or a lower --learning-rate")
    runs, measured = of(done, setting), lengths(done, setting)
    steps = min(measured, key=lambda length: mean_loss(of(done, setting, length)))
    if steps == measured[-1] and len(measured) > 1:
        farthest = max(min(limit, FARTHEST * steps), steps)
        places = range(1 + math.ceil(_STEPS_A_DOUBLING * math.log2(farthest / steps)))
        ahead = [min(round(steps * 2 ** (place / _STEPS_A_DOUBLING)), farthest) for place in places]
        # A run of measured length may vary by more than that too.
        steps = max((length for length in ahead if task_loss(runs, length).half <= WIDEST), default=steps)
    return Plan(setting, steps, task_loss(runs, steps), certified_kl(runs, steps, budget))


def task_loss(runs: Sequence[Outcome], steps: int) -> Prediction:
    """Held-out task loss of a new run of the same setting, as long as the longest of `runs` or longer, or as some.

    Args:
        runs: of one setting.
        steps: one of their lengths, or more than the longest.
    """
    by_length = {length: [run for run in runs if run.cell.steps == length] for length in {r.cell.steps for r in runs}}
    noise, freedom = _pooled([[run.task_loss for run in group] for group in by_length.values()], prior=_NOISE)
    near = steps if steps in by_length else max(by_length)
    value, variance = mean_loss(by_length[near]), noise**2 * (1 + 1 / len(by_length[near]))
    if steps > near:
        if len(by_length) < 2:
            raise ValueError("runs of one length say nothing of longer ones")
        shorter = sorted(by_length)[-3:][0]
        doublings = math.log2(steps / near) / math.log2(near / shorter)
        gain = (mean_loss(by_length[shorter]) - value) * doublings
        carry = CARRY * doublings
        value -= CARRY * gain
        means = (1 + carry) ** 2 / len(by_length[near]) + carry**2 / len(by_length[shorter])
        variance = noise**2 * (1 + means) + (SPREAD * gain) ** 2
    half = _quantile(freedom) * math.sqrt(variance)
    return Prediction(value, max(value - half, 0.0), value + half)


def certified_kl(runs: Sequence[Outcome], steps: int, budget: float) -> Prediction:
    """Certified KL of a new run with the budget: what it was in the runs of that length, or in the longest.

    The KL of longer runs that leave part of the budget unused may grow up to where λ holds it.
    """
    by_length = {length: [run for run in runs if run.cell.steps == length] for length in {r.cell.steps for r in runs}}
    logs = {length: [math.log(max(run.kl, 1e-9)) for run in group] for length, group in by_length.items()}
    longest = max(by_length)
    near = logs.get(steps, logs[longest])
    spread, freedom = _pooled(list(logs.values()), prior=_KL_SPREAD)
    half = _quantile(freedom) * spread * math.sqrt(1 + 1 / len(near))
    centre = statistics.fmean(near)
    top = max(centre, math.log(TARGET * budget)) if steps > longest else centre
    return Prediction(math.exp(centre), math.exp(centre - half), math.exp(top + half))


def _pooled(groups: Sequence[Sequence[float]], *, prior: float) -> tuple[float, int]:
    """Standard deviation within groups, pooled with a prior value, and its degrees of freedom."""
    squares = sum((value - statistics.fmean(group)) ** 2 for group in groups for value in group)
    freedom = _PRIOR_RUNS + sum(len(group) - 1 for group in groups)
    return math.sqrt((_PRIOR_RUNS * prior**2 + squares) / freedom), freedom


@cache
def _quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.stats import t  # noqa: PLC0415 — slow to import

    return float(t.ppf((1 + INTERVAL) / 2, freedom))


def _up(value: float) -> float:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(max(value, 1e-9))) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
