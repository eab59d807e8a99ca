"""What each run tells a fit, and so how much a fit hides of its own error.

A fit draws its readings towards itself, most of all the runs that decide something alone, such as those of the least
rank; residuals as they are then make intervals too narrow. Two corrections for least squares with clustered errors
undo that (Bell & McCaffrey 2002, Bias reduction in standard errors for linear regression with multi-stage samples;
Pustejovsky & Tipton 2018, doi:10.1080/07350015.2016.1247004):

- residuals r of run g become (1 − H_g)^−½·r, with H_g the run's block of the hat matrix ("CR2"): on average they then
  have the spread of the errors;
- a prediction's variance is known with so many degrees of freedom (Satterthwaite) as runs bear on it, fewer at a corner
  of the readings than in their middle.

Both need of run g only its information F_g = J_g'·J_g, a matrix of parameters by parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keeptune.laws.forms import Floats

# Directions that the readings tell less of than this part of the best-told one have no finite error to speak of.
_LEAST_TOLD = 1e-12
# A direction that one run alone decides fits that run exactly: it has no residual to correct.
_ALONE = 1 - 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """The information of every run about the parameters of one fit."""

    of_runs: Floats
    """F_g: fp64, [runs, parameters, parameters]."""

    @classmethod
    def of(cls, jacobian: Floats, run: NDArray[np.int64]) -> Leverage:
        """From derivatives of the residuals, in units of their spread and times the roots of their robust weights.

        Args:
            jacobian: fp64, [M, parameters].
            run: [M], which run each row is of.
        """
        blocks = [jacobian[run == name] for name in np.unique(run)]
        return cls(of_runs=np.stack([block.T @ block for block in blocks]))

    def unhidden(self, residuals: Floats, jacobian: Floats, run: NDArray[np.int64]) -> Floats:
        """Residuals with the spread of the errors: (1 − H_g)^−½·r for each run g.

        Args:
            residuals: fp64, [M], in the units of `jacobian`.
            jacobian, run: what this was made of.
        """
        whitening = self._whitening()
        corrected = residuals.copy()
        for name, shares, directions in zip(np.unique(run), *self._shares(whitening), strict=True):
            own = run == name
            along = jacobian[own] @ whitening @ directions
            factor = np.where(shares < _ALONE, 1 / np.sqrt(1 - np.minimum(shares, _ALONE)), 0.0)
            told = shares > _LEAST_TOLD
            by_share = np.where(told, (factor - 1) / np.where(told, shares, 1.0), 0.0)
            corrected[own] += along @ (by_share * (along.T @ residuals[own]))
        return corrected

    def freedom(self, gradients: Floats) -> Floats:
        """Degrees of freedom, at least 1, of the variance of quantities with these gradients by the parameters.

        Args:
            gradients: fp64, [K, parameters].

        Returns:
            fp64, [K].
        """
        whitening = self._whitening()
        shares, directions = self._shares(whitening)
        shares = np.minimum(shares, _ALONE)
        # [K, runs, parameters]: the gradients along each run's own directions.
        along = np.einsum("kp,gpd->kgd", gradients @ whitening, directions)
        own = np.sum(along**2 * (shares / (1 - shares)), axis=2)
        drawn = np.einsum("kgd,gpd->kgp", along * (shares / np.sqrt(1 - shares)), directions)
        lengths = np.sum(drawn**2, axis=2)
        # Of the matrix diag(own) − drawn·drawn', the trace and the sum of squares, without writing out [runs, runs].
        trace = np.sum(own - lengths, axis=1)
        squares = np.sum(own * (own - 2 * lengths), axis=1) + np.sum(
            (drawn.transpose(0, 2, 1) @ drawn) ** 2, axis=(1, 2)
        )
        found = trace**2 / np.where(squares > 0, squares, 1.0)
        return np.maximum(found, 1.0)

    def _whitening(self) -> Floats:
        """W with W'·ΣF_g·W = 1 on the directions that readings tell of: fp64, [parameters, told]."""
        whole = self.of_runs.sum(axis=0)
        lengths = np.sqrt(np.diag(whole))
        lengths = np.where(lengths > 0, lengths, 1.0)
        told, directions = np.linalg.eigh(whole / np.outer(lengths, lengths))
        kept = told > _LEAST_TOLD * told[-1]
        whitening: Floats = directions[:, kept] / np.sqrt(told[kept]) / lengths[:, None]
        return whitening

    def _shares(self, whitening: Floats) -> tuple[Floats, Floats]:
        """Eigenvalues of each H_g, 0 … 1, and their directions in white coordinates: [runs, told], [.., told, told]."""
        shares, directions = np.linalg.eigh(whitening.T @ self.of_runs @ whitening)
        return np.clip(shares, 0.0, 1.0), directions
