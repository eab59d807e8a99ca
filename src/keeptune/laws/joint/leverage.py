"""The leverage of each run on a fit, and the corrections that intervals need because of it.

Residuals are smaller than the errors, most of all in runs with high leverage, such as those of the smallest rank.
Uncorrected residuals would make intervals too narrow. Two corrections for least squares with clustered errors (Bell &
McCaffrey 2002, Bias reduction in standard errors for linear regression with multi-stage samples; Pustejovsky & Tipton
2018, doi:10.1080/07350015.2016.1247004):

- Residuals r of run g become (1 − H_g)^−½·r, with H_g the run's block of the hat matrix ("CR2"). On average they then
  have the spread of the errors.
- The variance of a prediction has Satterthwaite degrees of freedom: fewer at a corner of the readings, where few runs
  matter, than in the middle.

Of run g both need only its information F_g = J_g'·J_g, a matrix of parameters by parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keeptune.laws.forms import Floats

# Directions with less than this share of the largest information have no finite error.
_LEAST_INFORMATION = 1e-12
# A direction that a single run determines fits that run exactly: there is no residual to correct.
_ALONE = 1 - 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """The information of every run about the parameters of one fit."""

    of_runs: Floats
    """F_g: fp64, [runs, parameters, parameters]."""

    @classmethod
    def of(cls, jacobian: Floats, run: NDArray[np.int64]) -> Leverage:
        """From derivatives of the residuals, fp64 [M, parameters], and the run of each row, [M].

        The derivatives are in units of the residuals' spread, times the roots of their robust weights.
        """
        blocks = [jacobian[run == name] for name in np.unique(run)]
        return cls(of_runs=np.stack([block.T @ block for block in blocks]))

    def corrected(self, residuals: Floats, jacobian: Floats, run: NDArray[np.int64]) -> Floats:
        """Residuals with the spread of the errors: (1 − H_g)^−½·r for each run g; fp64, [M], in units of `jacobian`.

        `jacobian` and `run` are those given to `of`.
        """
        whitening = self._whitening()
        result = residuals.copy()
        for name, shares, directions in zip(np.unique(run), *self._shares(whitening), strict=True):
            own = run == name
            along = jacobian[own] @ whitening @ directions
            factor = np.where(shares < _ALONE, 1 / np.sqrt(1 - np.minimum(shares, _ALONE)), 0.0)
            informed = shares > _LEAST_INFORMATION
            by_share = np.where(informed, (factor - 1) / np.where(informed, shares, 1.0), 0.0)
            result[own] += along @ (by_share * (along.T @ residuals[own]))
        return result

    def freedom(self, gradients: Floats) -> Floats:
        """Degrees of freedom, at least 1, of the variance of quantities with these gradients.

        From fp64 [K, parameters] to fp64 [K].
        """
        whitening = self._whitening()
        shares, directions = self._shares(whitening)
        shares = np.minimum(shares, _ALONE)
        # [K, runs, parameters]: the gradients along each run's own directions.
        along = np.einsum("kp,gpd->kgd", gradients @ whitening, directions)
        own = np.sum(along**2 * (shares / (1 - shares)), axis=2)
        drawn = np.einsum("kgd,gpd->kgp", along * (shares / np.sqrt(1 - shares)), directions)
        lengths = np.sum(drawn**2, axis=2)
        # Trace and sum of squares of the matrix diag(own) − drawn·drawn', without computing the matrix [runs, runs].
        trace = np.sum(own - lengths, axis=1)
        squares = np.sum(own * (own - 2 * lengths), axis=1) + np.sum(
            (drawn.transpose(0, 2, 1) @ drawn) ** 2, axis=(1, 2)
        )
        return np.maximum(trace**2 / np.where(squares > 0, squares, 1.0), 1.0)

    def _whitening(self) -> Floats:
        """W with W'·ΣF_g·W = 1 on the directions with information: fp64, [parameters, informed]."""
        whole = self.of_runs.sum(axis=0)
        lengths = np.sqrt(np.diag(whole))
        lengths = np.where(lengths > 0, lengths, 1.0)
        values, directions = np.linalg.eigh(whole / np.outer(lengths, lengths))
        kept = values > _LEAST_INFORMATION * values[-1]
        whitening: Floats = directions[:, kept] / np.sqrt(values[kept]) / lengths[:, None]
        return whitening

    def _shares(self, whitening: Floats) -> tuple[Floats, Floats]:
        """Eigenvalues of each H_g, 0 … 1, [runs, informed], and directions in white coordinates, [runs, informed²]."""
        shares, directions = np.linalg.eigh(whitening.T @ self.of_runs @ whitening)
        return np.clip(shares, 0.0, 1.0), directions
