"""The replay law fitted to a pilot, and the plan chosen by it: the run that learns most within the budget.

`PilotLaw` predicts task loss, KL and the rise of L_f of other runs. `choose` and `frontier` take any law, run nothing
and write nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import LineFit
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.robust import Band
from keeptune.plan.pilot import Run
from keeptune.plan.settings import WARMUP_STEPS
from keeptune.train.budget.controller import AIM

INTERVAL = 0.9
# With few runs, more replicates would take minutes and not improve the intervals.
BOOTSTRAPS = 60
FARTHEST = 10
"""The law is extrapolated to at most this multiple of the pilot's steps."""
EQUAL = 0.01
"""Task losses within the same hundredth of a nat count as equal, and the cheaper run is planned."""
_STEPS = 24
_WEIGHTS = 24
# How far λ may lie outside the pilot's values: as far as they lie from their geometric mean.
_BEYOND = 10**0.5


class Prediction(NamedTuple):
    """Predicted values of new runs with 90 % intervals, nats per token, fp64."""

    value: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, value: Floats, low: Floats, high: Floats) -> Prediction:
        """Clip all to 0 and above, and make the interval contain the value."""
        value = np.maximum(value, 0.0)
        return cls(value, np.clip(low, 0.0, value), np.maximum(high, value))


@dataclass(frozen=True, kw_only=True)
class PilotLaw:
    """The replay law (`keeptune.laws.replay.law`) of L_ft and √KL, and the line of L_f in KL.

    To second order KL(base‖tuned) is the square of a distance between the models, and its noise grows with it. Its
    square root follows the law in P and N as L_f does. KL itself starts too flat for a shifted power, and its largest
    values would dominate least squares.
    """

    drift: ReplayFit
    rise: LineFit
    L_f_base: float

    @classmethod
    def fit(cls, runs: Sequence[Run], *, bootstraps: int = BOOTSTRAPS) -> PilotLaw:
        """Fit to the readings after the warm-up; raises `ConfigError` if the runs do not determine the law."""
        roots = replay_runs(runs)
        L_f = np.array([row["L_f"] for run in runs for row in _usable(run)], dtype=np.float64)
        return cls(
            drift=ReplayFit(bootstraps=bootstraps).fit(roots),
            rise=LineFit(bootstraps=bootstraps).fit(replace(roots, L_ft=roots.L_f**2, L_f=L_f)),
            L_f_base=float(runs[0].rows[0]["L_f_base"]),
        )

    def predict(self, **where: ArrayLike) -> tuple[Prediction, Prediction]:
        """Task loss and KL at P, N, lambda_ and tokens, as in `ReplayFit.predict`."""
        task, root = self.drift.predict(**where, interval=INTERVAL)
        ends = (np.maximum(end, 0.0) ** 2 for end in (root.value, *_ends(root)))
        return Prediction.of(task.value, *_ends(task)), Prediction.of(*ends)

    def rise_at(self, kl: tuple[float, float, float]) -> list[float]:
        """The rise of L_f above the base's at a KL and its ends: value, low, high. It may be negative."""
        band = self.rise.predict(L_ft=np.array(kl), interval=INTERVAL)
        low, high = _ends(band)
        return [float(end) - self.L_f_base for end in (band.value[0], low.min(), high.max())]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fit = self.drift
        drift = {"form": fit.form_, "params": fit.params_, "spread": fit.spread_, "weak": fit.weak_}
        return {
            "L_ft and √KL": {**drift, "r2": list(fit.r2_), "runs": fit.runs_, "bootstraps": len(fit.draws_)},
            "L_f = −c·KL + s": {"params": self.rise.params_, "spread": self.rise.spread_, "r2": self.rise.r2_},
        }


def replay_runs(runs: Sequence[Run]) -> ReplayRuns:
    """The readings after the warm-up, with √KL in place of L_f."""
    table = [
        (number, row["P"], row["N"], row["L_ft"], max(row["KL"], 0.0) ** 0.5, run.cell.lambda_, run.tokens)
        for number, run in enumerate(runs)
        for row in _usable(run)
    ]
    number, P, N, L_ft, root, lambda_, tokens = np.array(table, dtype=np.float64).T
    named = {"P": P, "N": N, "L_ft": L_ft, "L_f": root, "lambda_": lambda_, "tokens": tokens}
    return ReplayRuns(run=number.astype(np.int64), L_f_base=0.0, **named)


def _usable(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.rows if row["N"] > WARMUP_STEPS]


def misses(runs: Sequence[Run]) -> dict[str, Any]:
    """Errors of the law on held-out readings: the highest rank if there are three, else the end of every run.

    `unseen` describes them; `L_ft` and `KL` are the largest relative errors.

    Raises:
        ConfigError: the law cannot be fitted to the rest.
    """
    sizes = sorted({run.parameters for run in runs})
    table = replay_runs(runs)
    last = np.equal(table.N, [table.N[table.run == run].max() for run in table.run])
    if len(sizes) >= 3:
        highest = np.equal(table.P, sizes[-1])
        left, kept, unseen = last & highest, ~highest, "the end of the run with the highest rank"
    else:
        left, kept, unseen = last, ~last, "the end of every run"
    fit = ReplayFit(bootstraps=0).fit(table.where(kept))
    observed = table.where(left)
    predicted = fit.predict(P=observed.P, N=observed.N, lambda_=observed.lambda_, tokens=observed.tokens)
    kl = np.maximum(predicted.L_f.value, 0.0) ** 2
    return {
        "unseen": unseen,
        "L_ft": float(np.max(np.abs(predicted.L_ft.value / observed.L_ft - 1))),
        "KL": float(np.max(np.abs(kl / np.maximum(observed.L_f, 1e-6) ** 2 - 1))),
    }


def _ends(band: Band) -> tuple[Floats, Floats]:
    if band.reading_low is None or band.reading_high is None:
        raise ConfigError("a single run gives no interval", "fit to more runs")
    return band.reading_low, band.reading_high


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
        what = f"no run within reach of the pilot keeps KL ≤ {budget:g} nats per token"
        raise ConfigError(
            what, f"give --budget {_up(least):g} or more; the pilot is finished, so the answer comes at once"
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
