"""From laws to a plan: of all possible runs, choose the one that learns most within the budget. No runs, no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.plan.law import Prediction
from keeptune.train.budget.controller import AIM

FARTHEST = 10
"""The law is extrapolated to at most this multiple of the pilot's steps."""
EQUAL = 0.01
"""Task losses within the same hundredth of a nat count as equal, and the cheaper run is planned."""
_STEPS = 24
_WEIGHTS = 24
# How far λ may lie outside the pilot's values: as far as they lie from their geometric mean.
_BEYOND = 10**0.5


class Law(Protocol):
    """What a plan needs of a law."""

    def predict(self, **where: ArrayLike) -> tuple[Prediction, Prediction]:
        """Task loss and KL by P, N, lambda_ and tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The runs that a plan may choose from."""

    ranks: Sequence[int]
    parameters_per_rank: float
    steps: tuple[int, int]
    """The smallest and the largest number of steps."""
    weights: tuple[float, float]
    """The smallest and the largest λ of the pilot's runs with replay."""
    tokens: Callable[[int], int]
    """Distinct replay tokens for a number of steps."""
    seconds: Callable[[int, int, float], float]
    """Seconds of a run with a rank, steps and λ, including its replay text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Runs that could be planned, as columns of one length. Losses and KL are those of a new run, nats per token."""

    rank: NDArray[np.int64]
    steps: NDArray[np.int64]
    lambda_: Floats
    tokens: NDArray[np.int64]
    seconds: Floats
    task: Prediction
    kl: Prediction

    def row(self, place: int) -> dict[str, Any]:
        """One candidate, for JSON."""
        columns = {"rank": self.rank, "steps": self.steps, "lambda": self.lambda_, "replay_tokens": self.tokens}
        row = {name: column[place].item() for name, column in (columns | {"seconds": self.seconds}).items()}
        ends = {"task_loss": self.task, "KL": self.kl}
        return row | {name: [float(end[place]) for end in of] for name, of in ends.items()}


def candidates(law: Law, reach: Reach) -> Candidates:
    """All ranks, steps and λ within reach, with the predictions of the law."""
    least, most = reach.steps
    steps = np.unique(np.geomspace(least, max(most, least), _STEPS).round().astype(np.int64))
    low, high = reach.weights
    weights = np.append(0.0, np.geomspace(low / _BEYOND, high * _BEYOND, _WEIGHTS))
    rank, N, lambda_ = (axis.ravel() for axis in np.meshgrid(np.asarray(reach.ranks), steps, weights, indexing="ij"))
    tokens = np.where(lambda_ > 0, [reach.tokens(int(count)) for count in N], 0)
    task, kl = law.predict(P=rank * reach.parameters_per_rank, N=N, lambda_=lambda_, tokens=tokens)
    cost = [reach.seconds(int(r), int(n), float(w)) for r, n, w in zip(rank, N, lambda_, strict=True)]
    seconds = np.array(cost, dtype=np.float64)
    return Candidates(rank=rank, steps=N, lambda_=lambda_, tokens=tokens, seconds=seconds, task=task, kl=kl)


def choose(options: Candidates, budget: float, hours: float | None = None) -> int:
    """The index of the run to plan: the lowest task loss, and among equal losses the cheapest run.

    With replay the budget controller corrects λ, so the predicted KL must lie at its target, a tenth below the budget.
    Without replay nothing corrects the law, so the whole interval must lie within the budget.

    Raises:
        ConfigError: no run within reach stays within the budget, or none in the time.
    """
    within = np.where(options.lambda_ > 0, options.kl.value <= AIM * budget, options.kl.high <= budget)
    if not within.any():
        least = float(options.kl.value[options.lambda_ > 0].min()) / AIM
        raise ConfigError(
            f"no run within reach of the pilot keeps KL ≤ {budget:g} nats per token",
            f"give --budget {_up(least):g} or more; the pilot is finished, so the answer comes at once",
        )
    within &= options.seconds <= (math.inf if hours is None else 3600 * hours)
    if not within.any():
        what = f"no run within the budget fits into {hours:g} hours"
        raise ConfigError(what, "give more --hours, or a larger --budget")
    hundredths = np.floor(options.task.value / EQUAL)
    return int(np.lexsort((options.task.value, options.seconds, hundredths, ~within))[0])


def controlled_interval(options: Candidates, place: int, budget: float) -> tuple[float, float]:
    """The ends of the task loss of a run whose λ the budget controller moves.

    If the law is wrong, the controller moves λ until the KL is right, and the task loss changes too. The interval spans
    those of every λ whose KL interval contains the controller's target.
    """
    similar = (options.rank == options.rank[place]) & (options.steps == options.steps[place]) & (options.lambda_ > 0)
    similar &= (options.kl.low <= AIM * budget) & (options.kl.high >= AIM * budget)
    similar[place] = True
    return float(options.task.low[similar].min()), float(options.task.high[similar].max())


def frontier(options: Candidates) -> list[int]:
    """Indices of the runs that no other run beats in both task loss and KL, in the order of KL."""
    order = np.lexsort((options.task.value, options.kl.value))
    best, places = math.inf, []
    for place in order.tolist():
        if options.task.value[place] < best:
            best = float(options.task.value[place])
            places.append(place)
    return places


def _up(value: float) -> float:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(max(value, 1e-9))) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
