"""Our extension of the joint law to replay: the effect of its weight λ and its T distinct tokens on both losses.

With F = L_f − L_f_base the rise of L_f, and L_ft⁰, L_f⁰ the joint law (2401.05605, eqs. 5 and 6):

    F(P, N, λ, T)    = F⁰(P, N) · [q + (1 − q)·(1 + λ/λ0)^−γ]
    L_ft(P, N, λ, T) = L_ft⁰(P, N / [q + (1 − q)·(1 + λ/λ0)^κ])
    q(T)             = 1 / (1 + (T/T0)^δ)

Derivation. Near the base the KL of the replay is a quadratic penalty. Along a direction where the task has curvature h
and the KL curvature k, the weights stop at a share 1/(1 + λ·k/h) of the way, and forgetting at its square. So γ is 2
for one direction and smaller for a spectrum of directions, with λ0 = h/k of a middle one. A finite pool protects only
what its tokens cover. The share q of what would be forgotten is not covered, however large λ is. It is a floor that
falls as a power of the pool, like the coverage of a heavy-tailed distribution. The task loses no accuracy but time: λ
divides the steps, so that the same task loss takes a multiple of the steps.

Limits: λ → 0 or T → 0 is the joint law; T → ∞ is the effect of λ alone; λ → ∞ leaves the floor q·F⁰. In the law of
Bethune et al. 2025 (2502.06042) the fraction p of old data multiplies the model's size, (1 + B·p)^−α: λ0 is its 1/B and
γ its α. Its data are fresh, so it has no q.

`Model` has the law and its simpler rivals in coordinates that suit a least-squares solver, with their Jacobians.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats, JointLaw, Losses
from keeptune.laws.joint.surface import NAMES, Surface
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.robust import Limits, solve


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The effect of replay on forgetting and on the pace of learning."""

    lambda_0: float
    """The scale of λ at which replay starts to reduce forgetting."""
    gamma: float
    """How fast forgetting falls with λ."""
    kappa: float
    """How fast learning slows with λ."""
    tokens_0: float
    """Distinct replay tokens that leave half of what would be forgotten uncovered; 0 if the pool does not matter."""
    delta: float
    """How fast the uncovered share falls with tokens."""

    def factors(self, lambda_: ArrayLike, tokens: ArrayLike) -> tuple[Floats, Floats]:
        """The factor of the rise of L_f, and the divisor of the steps; fp64."""
        held = np.log1p(np.asarray(lambda_, dtype=np.float64) / self.lambda_0)
        with np.errstate(divide="ignore", over="ignore"):
            pool = np.asarray(tokens, dtype=np.float64)
            q = 1 / (1 + (pool / self.tokens_0) ** self.delta) if self.tokens_0 else 0
        return q + (1 - q) * np.exp(-self.gamma * held), q + (1 - q) * np.exp(self.kappa * held)


@dataclass(frozen=True, kw_only=True)
class ReplayLaw:
    """Both losses from tuned parameters, steps, λ and distinct replay tokens."""

    joint: JointLaw
    """The law without replay."""
    hold: Hold
    L_f_base: float
    """The base's own forgetting loss, nats per token."""

    def predict(self, *, P: ArrayLike, N: ArrayLike, lambda_: ArrayLike, tokens: ArrayLike = np.inf) -> Losses:
        """Predict both losses, fp64 in the broadcast shape of all four, nats per token.

        Args:
            P, N: tuned parameters and update steps, above 0.
            lambda_: weight of the replay term, 0 or more, finite.
            tokens: distinct replay tokens, 0 or more; inf if no token is used twice.

        Raises:
            ConfigError: a value outside these ranges.
        """
        for name, values, most in (("lambda", lambda_, np.finfo(np.float64).max), ("replay_tokens", tokens, np.inf)):
            given = np.asarray(values, dtype=np.float64)
            if not np.all((given >= 0) & (given <= most)):
                raise ConfigError(f"the law is not defined at {name} = {given}", f"give a {name} of 0 or more")
        P, N, weight, pool = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (P, N, lambda_, tokens)))
        kept, slower = self.hold.factors(weight, pool)
        L_f = self.joint.predict(P=P, N=N).L_f
        return Losses(self.joint.predict(P=P, N=N / slower).L_ft, self.L_f_base + kept * (L_f - self.L_f_base))


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
        surface, sizes = Surface.of(runs.P, runs.N), runs.sizes
        held: dict[str, float] = {}
        if len(sizes) < _LEAST_SIZES:
            held |= {"logit_w_ft": 0.0, "logit_w_f": 0.0, "log_rho": np.log(_PRODUCT_RHO)}
        if len(sizes) == 1:
            held |= {"log_slope_P_ft": np.log(1e-3), "log_slope_P_f": np.log(1e-3)}
        return cls(
            form=form,
            center=(surface.mean_log_P, surface.mean_log_N),
            fixed=np.array([held.get(name, 0.0) for name in NAMES]),
            free=tuple(place for place, name in enumerate(NAMES) if name not in held),
            L_f_base=runs.L_f_base,
            only_P=sizes[0] if len(sizes) == 1 else None,
        )

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

    def solve(
        self, start: Floats, runs: ReplayRuns, scale: Floats, drawn: Floats | None = None, **limits: Unpack[Limits]
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

    def predict(self, *, P: ArrayLike, N: ArrayLike, lambda_: ArrayLike, tokens: ArrayLike = np.inf) -> Losses:
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
