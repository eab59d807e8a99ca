"""The joint law in coordinates that suit a least-squares solver, with its Jacobian.

Equations 5 and 6 have 13 parameters, of which data determine 11: c_ft only rescales a and b of both equations, and
c_f_ft those of the second. Here each surface is, with p = log P and n = log N minus their means,

    g = e^m·[w·exp(−P'·p/(w·rho)) + (1 − w)·exp(−N'·n/((1 − w)·rho))]^rho

so that L_ft = s + g_ft and L_f = t − g_f. This is the paper's bracket with alpha = P'/(w·rho), beta = N'/((1 − w)·rho).
Data determine the level m and the slopes P' and N' (how fast g falls with P and N in the middle of the readings) best.
w and rho only bend the surface, so that a solver finds the others even if the data hardly determine w and rho.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keeptune.laws.forms import Floats, JointLaw, log_of

NAMES = (
    "m_ft", "log_slope_P_ft", "log_slope_N_ft", "logit_w_ft",
    "m_f", "log_slope_P_f", "log_slope_N_f", "logit_w_f",
    "log_rho", "s_ft", "t_f",
)  # fmt: skip
READABLE = (
    "slope_P_ft", "slope_N_ft", "alpha_ft", "beta_ft", "slope_P_f", "slope_N_f", "alpha_f", "beta_f", "rho",
)  # fmt: skip
_LOG_RHO, _S, _T = 8, 9, 10
_SLOPE, _RHO, _LOGIT = (1e-3, 10.0), (0.2, 50.0), 6.0
# The solver squares the values of wild steps, which must stay finite.
_LARGEST_LOG = 300.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The coordinates of some readings in P and N. A vector θ of 11 numbers (`NAMES`) gives both losses there."""

    p: Floats
    n: Floats
    mean_log_P: float
    mean_log_N: float

    @classmethod
    def of(cls, P: Floats, N: Floats) -> Surface:
        """Coordinates centered on these readings."""
        log_P, log_N = np.log(P), np.log(N)
        mean_P, mean_N = float(log_P.mean()), float(log_N.mean())
        return cls(p=log_P - mean_P, n=log_N - mean_N, mean_log_P=mean_P, mean_log_N=mean_N)

    def at(self, P: ArrayLike, N: ArrayLike) -> Surface:
        """The same coordinates at other P and N, broadcast and flattened."""
        p, n = np.broadcast_arrays(log_of(P, "P") - self.mean_log_P, log_of(N, "N") - self.mean_log_N)
        return Surface(p=p.ravel(), n=n.ravel(), mean_log_P=self.mean_log_P, mean_log_N=self.mean_log_N)

    def losses(self, theta: Floats) -> Floats:
        """L_ft of all readings, then L_f of all readings: fp64, [2·readings], nats per token."""
        g_ft, _ = self._power(theta, 0)
        g_f, _ = self._power(theta, 4)
        return np.concatenate([theta[_S] + g_ft, theta[_T] - g_f])

    def jacobian(self, theta: Floats) -> Floats:
        """Derivatives of `losses`: fp64, [2·readings, 11]."""
        readings = len(self.p)
        whole = np.zeros((2 * readings, len(NAMES)))
        for first, sign, block in ((0, 1.0, whole[:readings]), (4, -1.0, whole[readings:])):
            g, parts = self._power(theta, first)
            block[:, first : first + 4] = (sign * g * parts[:4]).T
            block[:, _LOG_RHO] = sign * g * parts[4]
        whole[:readings, _S] = 1.0
        whole[readings:, _T] = 1.0
        return whole

    def _power(self, theta: Floats, first: int) -> tuple[Floats, Floats]:
        """g, and the derivatives of log g by the four coordinates of its surface and log rho, [5, readings]."""
        m, slope_P, slope_N, w, rho = _read(theta, first)
        x, y = -slope_P / (w * rho) * self.p, -slope_N / ((1 - w) * rho) * self.n
        left, right = np.log(w) + x, np.log1p(-w) + y
        mean = np.logaddexp(left, right)
        of_x, of_y = np.exp(left - mean), np.exp(right - mean)
        by_logit = (1 - w) * of_x * (1 - x) - w * of_y * (1 - y)
        by_log_rho = mean - of_x * x - of_y * y
        parts = np.stack([np.full_like(x, 1 / rho), of_x * x, of_y * y, by_logit, by_log_rho])
        return np.exp(np.minimum(m + rho * mean, _LARGEST_LOG)), rho * parts

    def bounds(self, L_ft: Floats, L_f: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds of θ: losses stay above 0, and L_f ends within ten times its observed range."""
        low, high = np.full(len(NAMES), -100.0), np.full(len(NAMES), 100.0)
        for first in (0, 4):
            low[first + 1 : first + 3], high[first + 1 : first + 3] = np.log(_SLOPE)
            low[first + 3], high[first + 3] = -_LOGIT, _LOGIT
        low[_LOG_RHO], high[_LOG_RHO] = np.log(_RHO)
        low[_S], high[_S] = 0.0, L_ft.max()
        low[_T], high[_T] = L_f.min(), L_f.max() + 10 * np.ptp(L_f)
        return low, high

    def starts(self, L_ft: Floats, L_f: Floats) -> list[Floats]:
        """Nine starting points: three guesses of the limits, powers from a plane through the logarithms, three rho."""
        points = []
        plane = np.stack([np.ones_like(self.p), self.p, self.n], axis=1)
        for beyond in (0.1, 0.5, 2.0):
            s = max(L_ft.min() - beyond * np.ptp(L_ft), 0.3 * L_ft.min())
            t = L_f.max() + beyond * np.ptp(L_f)
            halves = []
            for g in (L_ft - s, t - L_f):
                level, by_p, by_n = np.linalg.lstsq(plane, np.log(g), rcond=None)[0]
                halves += [level, *np.log(np.clip([-by_p, -by_n], 0.01, 5.0)), 0.0]
            points += [np.array([*halves, math.log(rho), s, t]) for rho in (1.0, 4.0, 16.0)]
        return points

    def law(self, theta: Floats, c_f_ft: float) -> JointLaw:
        """The same surface in the paper's parameters, with c_ft = 2^−rho and c_f_ft from the line (4)."""
        fields: dict[str, float] = {}
        for side, first, scale in (("ft", 0, 0.0), ("f", 4, math.log(c_f_ft))):
            m, slope_P, slope_N, w, rho = (float(value) for value in _read(theta, first))
            alpha, beta = slope_P / (w * rho), slope_N / ((1 - w) * rho)
            level = (m - scale) / rho - math.log(0.5)
            fields[f"log_a_{side}"] = (level + math.log(w)) / alpha + self.mean_log_P
            fields[f"log_b_{side}"] = (level + math.log1p(-w)) / beta + self.mean_log_N
            fields |= {f"alpha_{side}": alpha, f"beta_{side}": beta, "rho": rho}
        s_ft = float(theta[_S])
        return JointLaw(**fields, c_ft=2.0**-rho, s_ft=s_ft, c_f_ft=c_f_ft, s_f_ft=float(theta[_T]) + c_f_ft * s_ft)


def _read(theta: Floats, first: int) -> tuple[Any, ...]:
    """m, both slopes, w and rho; each a number, or a row if θ is a matrix of columns."""
    w = 1 / (1 + np.exp(-theta[first + 3]))
    return theta[first], np.exp(theta[first + 1]), np.exp(theta[first + 2]), w, np.exp(theta[_LOG_RHO])


def readable(theta: Floats) -> Floats:
    """Logarithms of the interpretable quantities of each θ, in the order of `READABLE`; fp64, from [K, 11] to [K, 9].

    A `slope` is −∂log g/∂log P or N in the middle of the readings. It is stable where alpha, rho and w trade off.
    """
    rows = []
    for first in (0, 4):
        _, slope_P, slope_N, w, rho = _read(theta.T, first)
        rows += [slope_P, slope_N, slope_P / (w * rho), slope_N / ((1 - w) * rho)]
    return np.log(np.stack([*rows, rho], axis=1))


def readable_jacobian(theta: Floats) -> Floats:
    """Derivatives of `readable` at one θ: fp64, [9, 11]."""
    whole = np.zeros((len(READABLE), len(NAMES)))
    for row, first in ((0, 0), (4, 4)):
        w = _read(theta, first)[3]
        whole[row, first + 1] = whole[row + 1, first + 2] = 1.0
        whole[row + 2, [first + 1, first + 3, _LOG_RHO]] = 1.0, w - 1, -1.0
        whole[row + 3, [first + 2, first + 3, _LOG_RHO]] = 1.0, w, -1.0
    whole[-1, _LOG_RHO] = 1.0
    return whole
