"""The forecast of a task loss, as a mixture of normals: every shape, noise and error of the form, by the readings.

A loss's change from the base is A·g(τ), the shifted power along one run (Kalajdzievski 2024, arXiv 2401.05605,
equation 5 at one P), generalized so that the start may be slow and the turn sharp:

    g(τ) = {[(1 + x)^b − 1]/b}^(1/s),  x ∝ (τ/τ₀)^(γ·s)       b < 0 saturates, b → 0 is a logarithm, b > 0 continues

Readings differ from this form by noise and by its own error, a Brownian motion in log τ. The error continues from the
latest residual and widens intervals with log(τ_end/τ_now). The model is conditionally linear and Gaussian. τ₀, γ, b,
s, the noise and the form's error lie on a grid, and each grid point has its posterior in closed form. The forecast is
their mixture, so it needs no sampling and no seed.

Shapes: H pairs of noise and error of the form, K shapes g, M readings, P coefficients (A, offset).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

from keeptune.laws.forms import Floats

_POWERS = np.array([-2.2, -1.5, -1.1, -0.8, -0.55, -0.35, -0.2, -0.05, 0.1, 0.3, 0.55])
# As shares of the run, because runs are made long enough to learn the task but not much longer.
_STARTS = np.geomspace(0.003, 4.0, 19)
_START, _START_SPREAD = 0.2, 1.2
_BENDS = np.array([1.0, 1.5, 2.0, 2.5])
_TURNS = np.array([1.0, 2.0, 4.0])


# The prior of the shape. The published law falls with N at a local power of about 0.5 (ρ·β, times the share of N in the
# bracket), and near the base a loss falls linearly as the weights move. The last two are weights of bends and turns.
_POWER, _POWER_SPREAD = -0.5, 0.5
_BEND_WEIGHTS, _TURN_WEIGHTS = (0.6, 0.25, 0.1, 0.05), (0.5, 0.4, 0.1)
# In units of the observed change; the error of the form is per factor e of steps.
_NOISES, _NOISE, _NOISE_SPREAD = np.geomspace(0.008, 0.2, 5), 0.025, 0.8
_ERRORS, _ERROR, _ERROR_SPREAD = np.geomspace(0.02, 0.3, 4), 0.08, 0.8
_LEAST_LEVEL = 0.2
_NEGLIGIBLE = 1e-5


class Observed(NamedTuple):
    """Readings, in units of the observed change; [M]."""

    tau: Floats
    change: Floats
    readings: Floats
    """Number of readings that each value is the mean of."""


def _shapes(tau_M: Floats) -> tuple[Floats, Floats]:
    """g of every shape, normalized to 1 at the last but one place, and log priors of the shapes; [K, M] and [K]."""
    log_power = np.log(np.gradient(_POWERS)) - 0.5 * ((_POWERS - _POWER) / _POWER_SPREAD) ** 2
    log_start = -0.5 * (np.log(_STARTS / _START) / _START_SPREAD) ** 2
    parts = np.meshgrid(log_power, log_start, np.log(_BEND_WEIGHTS), np.log(_TURN_WEIGHTS), indexing="ij")
    axes = np.meshgrid(_POWERS, _STARTS, _BENDS, _TURNS, indexing="ij")
    b_K, start_K, bend_K, turn_K = (axis.ravel()[:, None] for axis in axes)
    # Divided by 1 + |b|, so that for every b the change slows down at the same start.
    x_KM = (tau_M / (start_K * tau_M[-1])) ** (bend_K * turn_K) / (1 + np.abs(b_K))
    g_KM = (np.expm1(b_K * np.log1p(x_KM)) / b_K) ** (1 / turn_K)
    return g_KM / g_KM[:, -2:-1], np.sum(parts, axis=0).ravel()


def mixture(observed: Observed, tau_end: float, *, offset: bool) -> tuple[Floats, Floats, Floats]:
    """Weights, means and standard deviations of the forecast's components, in the unit of `observed`; [H·K] each."""
    g_KM, prior_K = _shapes(np.append(observed.tau, tau_end))
    now = observed.change[-1]
    columns = [(g_KM, now, 1.0)]
    if offset:
        columns.append((np.ones_like(g_KM), 0.0, 3.0))
    X_KMP = np.stack([column for column, _, _ in columns], axis=2)
    # Noise and the error of the form are proportional to the change.
    level_M = np.ones(len(observed.tau)) if offset else np.maximum.accumulate(np.abs(observed.change))
    level_M = np.maximum(level_M, _LEAST_LEVEL)
    # Old readings tell less about the end.
    doubt_M = ((1 + observed.tau[-1]) / (1 + observed.tau)) / observed.readings
    noise_H, error_H = np.array(list(itertools.product(_NOISES, _ERRORS))).T
    log_weights_HK, mean_HK, spread_HK = _posterior(
        X_KMP[:, :-1] / level_M[:, None],
        X_KMP[:, -1],
        observed.change / level_M,
        (np.log1p(observed.tau), float(np.log1p(tau_end))),
        doubt_M,
        (noise_H, error_H),
        np.array([(mean, spread) for _, mean, spread in columns]),
    )
    unlikely_H = (np.log(noise_H / _NOISE) / _NOISE_SPREAD) ** 2 + (np.log(error_H / _ERROR) / _ERROR_SPREAD) ** 2
    log_weights_HK += prior_K - 0.5 * unlikely_H[:, None]
    weights_HK = np.exp(log_weights_HK - log_weights_HK.max())
    kept_HK = weights_HK > _NEGLIGIBLE
    weights = weights_HK[kept_HK]
    return weights / weights.sum(), mean_HK[kept_HK], spread_HK[kept_HK]


def _posterior(
    X_KMP: Floats,
    end_KP: Floats,
    z_M: Floats,
    ages: tuple[Floats, float],
    doubt_M: Floats,
    sizes: tuple[Floats, Floats],
    prior_P2: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Linear regression of every shape under every pair of noise and error; [H, K] each.

    Returns log evidence, and mean and standard deviation of the value at the end.

    Args:
        X_KMP, z_M: design and values of the readings, divided by their level.
        end_KP: the design at the end; its first column is the growth of the shapes.
        ages: log(1 + τ) of the readings, [M], and of the end.
        doubt_M: factors of the variance of the noise.
        sizes: of noise and error; [H] each.
        prior_P2: mean and standard deviation of each coefficient.
    """
    age_M, age_end = ages
    noise_H, error_H = sizes
    mean_P, precision_P = prior_P2[:, 0], prior_P2[:, 1] ** -2
    # In these coordinates noise and Brownian motion are independent between readings, for all sizes.
    root_M = np.sqrt(doubt_M)
    walk_M, turn_MM = np.linalg.eigh(np.minimum(age_M[:, None], age_M) / np.outer(root_M, root_M))
    X_MKP = np.tensordot(turn_MM.T / root_M, X_KMP, (1, 1))
    z_M, ahead_M = turn_MM.T @ (z_M / root_M), turn_MM.T @ (age_M / root_M)
    weight_HM = 1 / (error_H[:, None] ** 2 * np.maximum(walk_M, 0) + noise_H[:, None] ** 2)

    def summed(of_M: Floats) -> Floats:
        return np.tensordot(weight_HM, of_M, (1, 0))

    precision_HKPP = summed(X_MKP[..., :, None] * X_MKP[..., None, :]) + np.diag(precision_P)
    covariance_HKPP = np.linalg.inv(precision_HKPP)
    right_HKP = summed(X_MKP * z_M[:, None, None]) + precision_P * mean_P
    theta_HKP = np.einsum("hkpq,hkq->hkp", covariance_HKPP, right_HKP)
    misfit_HK = summed(z_M**2)[:, None] - np.einsum("hkp,hkp->hk", right_HKP, theta_HKP)
    volume_HK = np.log(np.linalg.det(precision_HKPP)) - np.log(weight_HM).sum(axis=1)[:, None]
    # The Brownian motion continues from the latest residual and grows with the shape.
    level_K = end_KP[:, 0]
    carried_HKP = error_H[:, None, None] ** 2 * summed(X_MKP * ahead_M[:, None, None])
    row_HKP = end_KP - level_K[:, None] * carried_HKP
    carried_H = error_H**2 * summed(z_M * ahead_M)
    own_H = error_H**2 * (age_end - error_H**2 * summed(ahead_M**2)) + noise_H**2
    mean_HK = np.einsum("hkp,hkp->hk", row_HKP, theta_HKP) + level_K * carried_H[:, None]
    variance_HK = np.einsum("hkp,hkpq,hkq->hk", row_HKP, covariance_HKPP, row_HKP) + level_K**2 * own_H[:, None]
    return -0.5 * (misfit_HK + volume_HK), mean_HK, np.sqrt(variance_HK)


def quantiles(weights: Floats, means: Floats, spreads: Floats, shares: Floats) -> Floats:
    """Quantiles of a mixture of normals, by bisection."""
    low = np.full(len(shares), (means - 9 * spreads).min())
    high = np.full(len(shares), (means + 9 * spreads).max())
    for _ in range(40):
        middle = (low + high) / 2
        below = special.ndtr((middle[:, None] - means) / spreads) @ weights < shares
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    ends: Floats = (low + high) / 2
    return ends
