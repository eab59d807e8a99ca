"""From laws to a plan: of all runs within reach, the one that learns most within the budget. Pure: no run, no file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.plan.law import Said
from keeptune.train.budget.controller import AIM

FARTHEST = 10
"""The law is asked for at most so many times the pilot's steps."""
EQUAL = 0.01
"""Task losses within the same hundredth of a nat count as equal: the cheaper run is planned."""
_STEPS = 24
_WEIGHTS = 24
# Beyond the pilot's λ by as much as they are apart from their middle.
_BEYOND = 10**0.5


class Law(Protocol):
    """What a plan asks of a law."""

    def predict(self, **where: ArrayLike) -> tuple[Said, Said]:
        """Task loss and KL by P, N, lambda_ and tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The runs that a plan may choose from."""

    ranks: Sequence[int]
    parameters_per_rank: float
    steps: tuple[int, int]
    """The fewest and the most."""
    weights: tuple[float, float]
    """The least and the greatest λ of the pilot's runs with replay."""
    tokens: Callable[[int], int]
    """Distinct replay tokens for so many steps."""
    seconds: Callable[[int, int, float], float]
    """What a run of a rank, steps and λ takes, its replay text included."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Runs that could be planned: columns of one length. Losses and KL are of a new run, nats per token."""

    rank: NDArray[np.int64]
    steps: NDArray[np.int64]
    lambda_: Floats
    tokens: NDArray[np.int64]
    seconds: Floats
    task: Said
    kl: Said

    def row(self, place: int) -> dict[str, Any]:
        """One of them, for JSON."""
        return {
            "rank": int(self.rank[place]),
            "steps": int(self.steps[place]),
            "lambda": float(self.lambda_[place]),
            "replay_tokens": int(self.tokens[place]),
            "seconds": float(self.seconds[place]),
            "task_loss": [float(end[place]) for end in self.task],
            "KL": [float(end[place]) for end in self.kl],
        }


def candidates(law: Law, reach: Reach) -> Candidates:
    """All ranks, steps and λ within reach, with what the law says of them."""
    least, most = reach.steps
    steps = np.unique(np.geomspace(least, max(most, least), _STEPS).round().astype(np.int64))
    low, high = reach.weights
    weights = np.append(0.0, np.geomspace(low / _BEYOND, high * _BEYOND, _WEIGHTS))
    rank, N, lambda_ = (axis.ravel() for axis in np.meshgrid(np.asarray(reach.ranks), steps, weights, indexing="ij"))
    tokens = np.where(lambda_ > 0, [reach.tokens(int(count)) for count in N], 0)
    task, kl = law.predict(P=rank * reach.parameters_per_rank, N=N, lambda_=lambda_, tokens=tokens)
    cost = [reach.seconds(int(r), int(n), float(w)) for r, n, w in zip(rank, N, lambda_, strict=True)]
    return Candidates(
        rank=rank, steps=N, lambda_=lambda_, tokens=tokens, seconds=np.array(cost, dtype=np.float64), task=task, kl=kl
    )


def choose(found: Candidates, budget: float, hours: float | None = None) -> int:
    """The place of the run to plan: the lowest task loss, and of those equal to it the cheapest.

    With replay λ is steered, so the KL that the law expects must lie where steering aims, a tenth below the budget.
    Without, nothing corrects the law, so its whole interval must.

    Raises:
        ConfigError: no run within reach holds the budget, or none in the time.
    """
    holds = np.where(found.lambda_ > 0, found.kl.value <= AIM * budget, found.kl.high <= budget)
    if not holds.any():
        least = float(found.kl.value[found.lambda_ > 0].min()) / AIM
        raise ConfigError(
            f"no run within reach of the pilot holds KL ≤ {budget:g} nats per token",
            f"give --budget {_up(least):g} or more; the pilot stands, so the answer comes at once",
        )
    holds &= found.seconds <= (math.inf if hours is None else 3600 * hours)
    if not holds.any():
        raise ConfigError(
            f"no run that holds the budget fits into {hours:g} hours", "give more --hours, or a larger --budget"
        )
    hundredths = np.floor(found.task.value / EQUAL)
    order = np.lexsort((found.task.value, found.seconds, hundredths, ~holds))
    return int(order[0])


def steered(found: Candidates, place: int, budget: float) -> tuple[float, float]:
    """The ends of the task loss of a run whose λ is steered.

    Where the law is off, steering moves λ until the KL is right, and the task loss moves along: the interval spans
    those of every λ at which the KL may turn out to be what is aimed at.
    """
    alike = (found.rank == found.rank[place]) & (found.steps == found.steps[place]) & (found.lambda_ > 0)
    alike &= (found.kl.low <= AIM * budget) & (found.kl.high >= AIM * budget)
    alike[place] = True
    return float(found.task.low[alike].min()), float(found.task.high[alike].max())


def frontier(found: Candidates) -> list[int]:
    """Places of the runs that no other beats in both task loss and KL, from the least KL on."""
    order = np.lexsort((found.task.value, found.kl.value))
    best, places = math.inf, []
    for place in order.tolist():
        if found.task.value[place] < best:
            best = float(found.task.value[place])
            places.append(place)
    return places


def _up(value: float) -> float:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(max(value, 1e-9))) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
