"""The replay law in coordinates that suit a least-squares solver, with its Jacobian, and its simpler rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from keeptune.laws.forms import Floats
from keeptune.laws.joint.surface import NAMES, Surface
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.law import Hold, ReplayLaw
from keeptune.laws.robust import scale_of, solve

Form = Literal["replay", "no_tokens", "power", "constant", "none"]
"""`replay` is the law. Of its rivals, `no_tokens` ignores the pool (q = 0), `power` also divides forgetting by 1 + λ/λ0
(γ = 1), `constant` depends only on whether there is replay, and `none` is the joint law alone."""
_HOLD = ("lambda_0", "gamma", "kappa", "tokens_0", "delta")
_BOUNDS = np.log([(1e-3, 1e3), (1e-2, 10.0), (1e-4, 5.0), (1.0, 1e9), (0.05, 5.0)])
FREE: Mapping[str, tuple[str, ...]] = {
    "replay": _HOLD,
    "no_tokens": ("lambda_0", "gamma", "kappa"),
    "power": ("lambda_0", "kappa"),
    "constant": ("gamma", "kappa"),
    "none": (),
}
_LEAST_SIZES = 3
# At this power the joint law's bracket is a product of powers of P and N: for runs with too few P to determine more.
_PRODUCT_RHO = 1e3
_DIFFERENCE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Which of the joint law's 11 numbers and of the logarithms of the hold's five are free. θ holds the free ones."""

    form: Form
    center: tuple[float, float]
    fixed: Floats
    """The joint law's numbers, for those that are not free."""
    free: tuple[int, ...]
    L_f_base: float
    only_P: float | None
    """The only P of the runs; None if they have several."""

    @classmethod
    def of(cls, runs: ReplayRuns, form: Form) -> Model:
        surface, sizes = Surface.of(runs.P, runs.N), len(runs.sizes)
        fixed = np.zeros(len(NAMES))
        held = {"logit_w_ft", "logit_w_f", "log_rho"} if sizes < _LEAST_SIZES else set()
        if held:
            fixed[NAMES.index("log_rho")] = np.log(_PRODUCT_RHO)
        if sizes == 1:
            held |= {"log_slope_P_ft", "log_slope_P_f"}
            fixed[[NAMES.index("log_slope_P_ft"), NAMES.index("log_slope_P_f")]] = np.log(1e-3)
        free = tuple(place for place, name in enumerate(NAMES) if name not in held)
        only = runs.sizes[0] if sizes == 1 else None
        center = (surface.mean_log_P, surface.mean_log_N)
        return cls(form=form, center=center, fixed=fixed, free=free, L_f_base=runs.L_f_base, only_P=only)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the hold's free numbers."""
        return FREE[self.form]

    def law(self, theta: Floats) -> ReplayLaw | _Switch:
        empty = np.empty(0)
        surface = Surface(p=empty, n=empty, mean_log_P=self.center[0], mean_log_N=self.center[1])
        kind = _Switch if self.form == "constant" else ReplayLaw
        # The line's slope only rescales the second equation, and so does not matter here.
        return kind(joint=surface.law(self._joint(theta), 1.0), hold=self._hold(theta), L_f_base=self.L_f_base)

    def losses(self, theta: Floats, runs: ReplayRuns) -> Floats:
        plain, fast, kept, _ = self._surfaces(theta, runs)
        joint, count = self._joint(theta), len(runs)
        rise = plain.losses(joint)[count:] - self.L_f_base
        return np.concatenate([fast.losses(joint)[:count], self.L_f_base + kept * rise])

    def jacobian(self, theta: Floats, runs: ReplayRuns) -> Floats:
        plain, fast, kept, _ = self._surfaces(theta, runs)
        joint, count, free = self._joint(theta), len(runs), len(self.free)
        whole = np.zeros((2 * count, len(theta)))
        whole[:count, :free] = fast.jacobian(joint)[:count, list(self.free)]
        whole[count:, :free] = kept[:, None] * plain.jacobian(joint)[count:, list(self.free)]
        if self.held:
            later, earlier = (replace(fast, n=fast.n + step) for step in (_DIFFERENCE, -_DIFFERENCE))
            by_n = (later.losses(joint) - earlier.losses(joint))[:count] / (2 * _DIFFERENCE)
            own = derivatives(
                lambda t: np.concatenate(self._surfaces(np.append(theta[:free], t), runs)[2:]), theta[free:]
            )
            whole[:count, free:] = -by_n[:, None] * own[count:]
            whole[count:, free:] = (plain.losses(joint)[count:] - self.L_f_base)[:, None] * own[:count]
        return whole

    def _joint(self, theta: Floats) -> Floats:
        whole = self.fixed.copy()
        whole[list(self.free)] = theta[: len(self.free)]
        return whole

    def _hold(self, theta: Floats) -> Hold:
        default = {"lambda_0": 1.0, "gamma": 1.0 if self.held else 0.0, "kappa": 0.0, "tokens_0": 0.0, "delta": 1.0}
        return Hold(**{**default, **dict(zip(self.held, np.exp(theta[len(self.free) :]).tolist(), strict=True))})

    def _surfaces(self, theta: Floats, runs: ReplayRuns) -> tuple[Surface, Surface, Floats, Floats]:
        """The readings without replay and at the steps that replay leaves, the factor of the rise of L_f, and the
        logarithm of the divisor of the steps."""
        weights = np.sign(runs.lambda_) if self.form == "constant" else runs.lambda_
        kept, slower = self._hold(theta).factors(weights, runs.tokens)
        p, n = np.log(runs.P) - self.center[0], np.log(runs.N) - self.center[1]
        plain = Surface(p=p, n=n, mean_log_P=self.center[0], mean_log_N=self.center[1])
        return plain, replace(plain, n=n - np.log(slower)), kept, np.log(slower)

    def bounds(self, runs: ReplayRuns) -> tuple[Floats, Floats]:
        joint = Surface.of(runs.P, runs.N).bounds(runs.L_ft, runs.L_f)
        own = _BOUNDS[[_HOLD.index(name) for name in self.held]]
        low, high = (np.concatenate([joint[side][list(self.free)], own[:, side]]) for side in (0, 1))
        return low, high

    def scales(self, theta: Floats, runs: ReplayRuns) -> Floats:
        task, forgetting = (observed(runs) - self.losses(theta, runs)).reshape(2, -1)
        return np.repeat([scale_of(task, runs.L_ft), scale_of(forgetting, runs.L_f)], len(runs))

    def solve(
        self, start: Floats, runs: ReplayRuns, scale: Floats, drawn: Floats | None = None, **limits: Any
    ) -> Floats:
        target = observed(runs) if drawn is None else drawn
        return solve(
            lambda theta: (self.losses(theta, runs) - target) / scale,
            lambda theta: self.jacobian(theta, runs) / scale[:, None],
            start,
            self.bounds(runs),
            **limits,
        )


@dataclass(frozen=True, kw_only=True)
class _Switch(ReplayLaw):
    """The rival that depends only on whether there is replay."""

    def predict(self, *, P: ArrayLike, N: ArrayLike, lambda_: ArrayLike, tokens: ArrayLike = np.inf) -> Any:
        """`ReplayLaw.predict` with every λ above 0 replaced by 1."""
        on = (np.asarray(lambda_, dtype=np.float64) > 0).astype(np.float64)
        return super().predict(P=P, N=N, lambda_=on, tokens=tokens)


def observed(runs: ReplayRuns) -> Floats:
    """L_ft of all readings, then L_f of all readings."""
    return np.concatenate([runs.L_ft, runs.L_f])


def derivatives(values: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """Central differences: fp64, [values, parameters]."""
    steps = _DIFFERENCE * np.eye(len(theta))
    columns = [(values(theta + step) - values(theta - step)) / (2 * _DIFFERENCE) for step in steps]
    return np.stack(columns, axis=1)
