"""The laws as published: formula, source, units. Losses are in nats per token.

- `LineLaw` (4), `JointLaw` (5, 6): Kalajdzievski 2024, Scaling Laws for Forgetting When Fine-Tuning Large Language
  Models, arXiv 2401.05605. P is the number of tuned parameters, N the number of update steps, L_ft the task loss, and
  L_f the forgetting loss, the cross-entropy against the base's most likely token.
- `InjectionLaw`: Bethune et al. 2025, Scaling Laws for Forgetting during Finetuning with Pretraining Data Injection,
  arXiv 2502.06042.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeptune.errors import ConfigError

Floats = NDArray[np.float64]

# Llama-2-7B-chat with LoRA on all linear modules of attention and MLP.
LLAMA_2_7B_PARAMETERS_PER_RANK = 2_498_560


class Losses(NamedTuple):
    """Predictions of both losses, nats per token, fp64 in the shape of P and N."""

    L_ft: Floats
    L_f: Floats


@dataclass(frozen=True, kw_only=True)
class LineLaw:
    """`L_f = −c·L_ft + s` (2401.05605, eq. 4)."""

    c: float
    """Forgetting for each nat of task loss gained: nats per nat."""
    s: float
    """Intercept, nats per token."""

    def predict(self, *, L_ft: ArrayLike) -> Floats:
        """L_f where the task loss is L_ft."""
        return self.s - self.c * np.asarray(L_ft, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class JointLaw:
    """Task loss and forgetting from tuned parameters and steps (2401.05605, eqs. 5 and 6):

        L_ft = c_ft·[(a_ft/P)^alpha_ft + (b_ft/N)^beta_ft]^rho + s_ft
        L_f = −c_f_ft·{c_ft·[(a_f/P)^alpha_f + (b_f/N)^beta_f]^rho + s_ft} + s_f_ft

    a and b are stored as natural logarithms, because they overflow as the exponents go to zero.
    """

    log_a_ft: float
    log_b_ft: float
    alpha_ft: float
    beta_ft: float
    log_a_f: float
    log_b_f: float
    alpha_f: float
    beta_f: float
    rho: float
    c_ft: float
    s_ft: float
    """The limit of the task loss, nats per token."""
    c_f_ft: float
    s_f_ft: float

    @classmethod
    def published(cls, name: str) -> JointLaw:
        """The parameters as printed in the paper, a few digits each: predictions are accurate to ±0.01 nats.

        Raises:
            ConfigError: a name other than `llama2-7b-chat/openorca` and `llama2-7b-chat/news`.
        """
        if name not in PUBLISHED:
            raise ConfigError(f"there is no published law {name}", f"choose one of {', '.join(PUBLISHED)}")
        return PUBLISHED[name]

    @property
    def line(self) -> LineLaw:
        """The line (4) of the same fit."""
        return LineLaw(c=self.c_f_ft, s=self.s_f_ft)

    def predict(self, *, P: ArrayLike, N: ArrayLike) -> Losses:
        """Predict both losses from P tuned parameters and N update steps, broadcast.

        Raises:
            ConfigError: a P or an N that is not above 0.
        """
        log_P, log_N = log_of(P, "P"), log_of(N, "N")
        L_ft = self.s_ft + self._power(self.alpha_ft * (self.log_a_ft - log_P), self.beta_ft * (self.log_b_ft - log_N))
        inner = self.s_ft + self._power(self.alpha_f * (self.log_a_f - log_P), self.beta_f * (self.log_b_f - log_N))
        return Losses(L_ft, self.s_f_ft - self.c_f_ft * inner)

    def _power(self, x: Floats, y: Floats) -> Floats:
        return np.exp(math.log(self.c_ft) + self.rho * np.logaddexp(x, y))


@dataclass(frozen=True, kw_only=True)
class InjectionLaw:
    """Loss on pretraining data after fine-tuning with a fraction of it mixed in (2502.06042):

    L_pt = L_pt0 + A·D_ft^beta / ((1 + B·p)·N)^alpha
    """

    L_pt0: float
    """The base's loss on pretraining data, nats per token."""
    A: float
    B: float
    """The paper's fits run from about 829 to 1e4."""
    alpha: float
    beta: float

    def predict(self, *, N: ArrayLike, D_ft: ArrayLike, p: ArrayLike) -> Floats:
        """L_pt, nats per token.

        Args:
            N: parameters of the model (elsewhere N is the number of steps).
            D_ft: tokens of new data.
            p: fraction of pretraining data in the training data, 0 … 1.

        Raises:
            ConfigError: an N or a D_ft that is not above 0.
        """
        size = log_of(N, "N") + np.log(self.effective_size(p))
        return self.L_pt0 + self.A * np.exp(self.beta * log_of(D_ft, "D_ft") - self.alpha * size)

    def effective_size(self, p: ArrayLike) -> Floats:
        """1 + B·p, by which the mixture enlarges the model for forgetting; raises `ConfigError` if p is not 0 … 1."""
        fraction = np.asarray(p, dtype=np.float64)
        if not np.all((fraction >= 0) & (fraction <= 1)):
            raise ConfigError(f"p is {fraction}, not a fraction of the training data", "give a value from 0 to 1")
        return 1 + self.B * fraction


def log_of(values: ArrayLike, name: str) -> Floats:
    """Natural logarithm, fp64; raises `ConfigError` for a value that is not above 0 or not finite."""
    given = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(given) & (given > 0)):
        raise ConfigError(f"the law is not defined at {name} = {given}", f"give a {name} above 0")
    return np.log(given)


PUBLISHED = {
    "llama2-7b-chat/openorca": JointLaw(
        log_a_ft=math.log(0.0007e7), log_b_ft=math.log(72.9186), alpha_ft=0.0424, beta_ft=0.1219,
        log_a_f=math.log(0.0388e7), log_b_f=math.log(23.6418), alpha_f=0.0351, beta_f=0.1468,
        rho=7.6885, c_ft=0.0020, s_ft=0.6126, c_f_ft=1.7334, s_f_ft=2.0481,
    ),
    "llama2-7b-chat/news": JointLaw(
        log_a_ft=math.log(0.0022e7), log_b_ft=math.log(54.8678), alpha_ft=0.0383, beta_ft=0.1161,
        log_a_f=math.log(0.0011e7), log_b_f=math.log(97.8466), alpha_f=0.0458, beta_f=0.1044,
        rho=7.5996, c_ft=0.0028, s_ft=1.9253, c_f_ft=1.0615, s_f_ft=3.1285,
    ),
}  # fmt: skip
