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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats, JointLaw, Losses


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
