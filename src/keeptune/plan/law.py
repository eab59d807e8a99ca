"""The replay law fitted to a pilot: predicts task loss, KL and the rise of L_f of other runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import LineFit
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.robust import Band
from keeptune.plan.pilot import Run
from keeptune.plan.settings import WARMUP_STEPS

INTERVAL = 0.9
# With few runs, more replicates would take minutes and not improve the intervals.
BOOTSTRAPS = 60


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
