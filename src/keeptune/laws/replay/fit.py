"""The replay law and its simpler rivals fitted to runs that differ in λ and replay tokens, as scikit-learn does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats, Losses
from keeptune.laws.joint.fit import REPLICATE_LIMITS, Bands, corrected, ranges, scales_of
from keeptune.laws.joint.surface import NAMES, Surface
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.law import FREE, Form, Model, derivatives, observed
from keeptune.laws.robust import r_squared, replicates

_START_EVALUATIONS = 30
# Fewer readings without replay do not determine the curve that replay lowers.
_LEAST_PLAIN = 3


@dataclass(kw_only=True)
class ReplayFit:
    """The replay law, or a rival, fitted to runs of which some have no replay.

    Attributes after `fit`: `law_`, a `ReplayLaw`; `params_`, the parameters of its `Hold`; `spread_`, their 90 % ranges
    if the runs determine them within a factor of ten, and `weak_`, the names of the others; `r2_` of L_ft and L_f;
    `runs_`, the number of runs; `form_`, the fitted form: with pools of one size `replay` becomes `no_tokens`.
    """

    form: Form = "replay"
    bootstraps: int = 200
    """Number of replicates for the intervals; 0 for no intervals."""
    seed: int = 0
    """Seed of the replicates."""

    def fit(self, runs: ReplayRuns) -> Self:
        """Fit to all readings.

        Raises:
            ConfigError: no run without replay, or fewer than three readings without replay; fewer than two λ above 0;
                or fewer readings than parameters.
        """
        self.form_ = _possible(self.form, runs)
        self.model_ = model = Model.of(runs, self.form_)
        start = _first(model, runs)
        scale = scales_of(observed(runs) - model.losses(start, runs), runs)
        best = model.solve(model.solve(start, runs, scale), runs, scale)
        scale = scales_of(observed(runs) - model.losses(best, runs), runs)
        best = model.solve(best, runs, scale)
        fitted, both = model.losses(best, runs), np.tile(runs.run, 2)
        self.leverage_, residuals = corrected(observed(runs) - fitted, model.jacobian(best, runs), scale, both)
        self.residuals_: Floats = residuals.reshape(2, -1)

        def refit(factors: Floats) -> Floats:
            return self.model_.solve(best, runs, scale, fitted + factors * residuals, **REPLICATE_LIMITS)

        self.draws_: Floats = replicates(both, self.bootstraps, self.seed, refit)
        self.theta_, self.runs_ = best, runs.count
        self.restore()
        self.r2_ = self.score(runs)
        return self

    def restore(self) -> None:
        """Compute the attributes that follow from `model_`, `theta_`, `draws_` and `leverage_`."""
        self.law_ = self.model_.law(self.theta_)
        self.params_ = {name: asdict(self.law_.hold)[name] for name in self.model_.held}
        names, own = self.model_.held, slice(len(self.model_.free), None)
        logs: dict[str, tuple[float, float]] = {}
        if len(self.draws_) and names:
            freedom = self.leverage_.freedom(np.eye(len(self.theta_))[own])
            logs = ranges(names, self.theta_[own], self.draws_[:, own], freedom)
        self.weak_ = [name for name, (low, high) in logs.items() if high - low > np.log(10)]
        known = {name: ends for name, ends in logs.items() if name not in self.weak_}
        self.spread_ = {name: (float(np.exp(low)), float(np.exp(high))) for name, (low, high) in known.items()}

    def predict(self, *, P: ArrayLike, interval: float | None = None, **others: ArrayLike) -> Bands:
        """Predict both losses, fp64 in the broadcast shape of all four, nats per token.

        Args:
            P, others: P, N, lambda_ and tokens, as in `ReplayLaw.predict`.
            interval: coverage of the bands, such as 0.9.

        Raises:
            ConfigError: the law is not defined there, all runs have one other P, or an interval outside 0 … 1.
        """
        only = self.model_.only_P
        if only is not None and not np.allclose(np.asarray(P, dtype=np.float64), only, rtol=1e-3):
            what = f"all runs have P = {only:,.0f}, and nothing is known of P = {np.asarray(P)}"
            raise ConfigError(what, "give the P of the runs, or fit runs of more ranks")

        def losses(theta: Floats) -> Losses:
            return self.model_.law(theta).predict(P=P, **others)

        value, draws = losses(self.theta_), [losses(theta) for theta in self.draws_]
        gradients = derivatives(lambda theta: np.ravel(losses(theta)), self.theta_)
        freedom = self.leverage_.freedom(gradients).reshape(2, *value.L_ft.shape)
        return Bands.of(value, draws, self.residuals_, interval, freedom)

    def score(self, runs: ReplayRuns) -> tuple[float, float]:
        """R² of L_ft and of L_f."""
        predicted = self.law_.predict(P=runs.P, N=runs.N, lambda_=runs.lambda_, tokens=runs.tokens)
        return r_squared(runs.L_ft, predicted.L_ft), r_squared(runs.L_f, predicted.L_f)


def _possible(form: Form, runs: ReplayRuns) -> Form:
    if form not in FREE:
        raise ConfigError(f"there is no form {form} of the replay law", f"choose one of {', '.join(FREE)}")
    weights = sorted(set(runs.lambda_.tolist()))
    if weights[0] > 0:
        what = "no run is without replay, and the replay law compares with such runs"
        raise ConfigError(what, "add a run with --lambda 0")
    if len(weights) < 3:
        what = f"the replay law needs two λ above 0, and the runs have λ = {', '.join(f'{w:g}' for w in weights)}"
        raise ConfigError(what, "add runs with another --lambda")
    if 2 * len(runs) <= len(NAMES) + len(FREE[form]):
        raise ConfigError(f"{len(runs)} readings cannot determine the replay law", "read more often")
    plain = runs.where(np.equal(runs.lambda_, 0))
    task, forgetting = len(set(plain.L_ft.tolist())), len(set(plain.L_f.tolist()))
    if min(task, forgetting) < _LEAST_PLAIN:
        values = f"{task} values of L_ft and {forgetting} of L_f"
        what = f"the replay law needs three readings without replay, and the runs have {values}"
        raise ConfigError(what, "read the run with --lambda 0 more often, or leave out fewer readings with --after")
    pools = {tokens for _, tokens in runs.cells if tokens > 0}
    return "no_tokens" if form == "replay" and len(pools) < 2 else form


def _first(model: Model, runs: ReplayRuns) -> Floats:
    """The best of some starting points: the joint law fitted to the runs without replay, with several holds each."""
    plain = runs.where(np.equal(runs.lambda_, 0))
    alone = replace(model, form="none")
    tenth = 0.1 * np.repeat([max(np.ptp(loss), 1e-9) for loss in (plain.L_ft, plain.L_f)], len(plain))
    surface = Surface.of(runs.P, runs.N).at(plain.P, plain.N)
    ways = [
        alone.solve(start[list(model.free)], plain, tenth, evaluations=_START_EVALUATIONS)
        for start in surface.starts(plain.L_ft, plain.L_f)[1::3]
    ]
    joint = min(ways, key=lambda theta: float(np.sum(np.abs(alone.losses(theta, plain) - observed(plain)) / tenth)))
    if not model.held:
        return joint
    tenth = 0.1 * np.repeat([np.ptp(runs.L_ft), np.ptp(runs.L_f)], len(runs))
    pool = float(np.median(runs.tokens[runs.tokens > 0]))
    starts = [
        np.concatenate([joint, np.log([hold[name] for name in model.held])])
        for lambda_0 in (0.1, 1.0)
        for tokens_0 in (pool / 10, pool)
        for hold in [{"lambda_0": lambda_0, "gamma": 1.0, "kappa": 0.1, "tokens_0": tokens_0, "delta": 0.5}]
    ]
    ways = [model.solve(start, runs, tenth, evaluations=_START_EVALUATIONS) for start in starts]
    return min(ways, key=lambda theta: float(np.sum(np.abs(model.losses(theta, runs) - observed(runs)) / tenth)))
