"""The change of each matrix without its small singular values: what many entries share stays, noise goes.

Hard thresholding at ω(β)·median(σ) is the best denoiser of a low-rank matrix in white noise (Gavish and Donoho 2014,
IEEE Trans. Inf. Theory 60; ω by their cubic in β, the ratio of the sides). As a repair without data it is that of
dghard (arXiv 2605.20296). Here the threshold is t times that, t = 1/s − 1: strength ½ is their rule, 1 keeps all and
0 drops all. Singular values that are 0, as a low-rank adapter has, do not enter the median.

Shapes: M and N sides of a matrix, N ≤ M, R singular values kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from keeptune.repair.change import store

_VALUES, _VECTORS = ".values", ".vectors"


class Svd:
    """Singular vectors are computed once and kept in a file; a candidate is the change projected onto the kept ones."""

    name, title, ends_at_tuned, linear = "svd", "the large singular values of the change", True, False

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: Mapping[str, Tensor] | None = None

    def prepare(self, base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
        """Compute the singular values and vectors of every matrix that differs."""
        parts: dict[str, Tensor] = {}
        for name in names:
            if base[name].ndim == 2:
                parts[name + _VALUES], parts[name + _VECTORS] = decomposed(tuned[name] - base[name])
        if self._file is None:
            self._known = parts
        elif parts:
            self._known = store(parts, self._file)

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """Vectors are interpolated, and so are stacks of matrices."""
        if strength in (0.0, 1.0) or base.ndim != 2:
            return torch.lerp(base, tuned, strength)
        change = tuned - base
        known = self._known or {}
        if name + _VALUES not in known:
            values_N, vectors_NN = decomposed(change)
        else:
            values_N, vectors_NN = known[name + _VALUES], known[name + _VECTORS]
        least = (1 / strength - 1) * threshold(values_N, change.shape, rounding(tuned))
        kept_NR = vectors_NN[:, values_N > least]
        if kept_NR.shape[1] == vectors_NN.shape[1]:
            return tuned
        wide = change.shape[0] < change.shape[1]
        kept = kept_NR @ (kept_NR.T @ change) if wide else (change @ kept_NR) @ kept_NR.T
        return base + kept


def decomposed(change: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values [N] and the vectors of the shorter side [N, N], fp32, by the Gram matrix in fp64."""
    wide = change.double()
    gram = wide @ wide.T if change.shape[0] < change.shape[1] else wide.T @ wide
    squares_N, vectors_NN = torch.linalg.eigh(gram)
    return squares_N.clamp(min=0).sqrt().float(), vectors_NN.float()


def rounding(matrix: Tensor) -> float:
    """The largest singular value that rounding an fp32 matrix to its 24 bits can make."""
    size = float(matrix.abs().max()) * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    return size * torch.finfo(torch.float32).eps


def threshold(values_N: Tensor, shape: torch.Size, floor: float) -> float:
    """ω(β)·median of the singular values above `floor`."""
    above = values_N[values_N > floor]
    if not len(above):
        return 0.0
    beta = min(shape) / max(shape)
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    return omega * float(above.median())
