"""Continual learning from a score matrix: what stages taught, what later ones took away, what they gave in advance.

R[i, j] is the score on column j after stage i, the higher the better; row 0 is the base, b_j, which no stage trained.
ACC, BWT and FWT are those of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), forgetting that of Chaudhry et al. 2018
(arXiv 1801.10112): f_j = max_{1≤l<T} R[l, j] − R[T, j]. As in the original the base's row is not in the maximum: what
stage j taught is forgotten, not what the base was good at. A column that no stage trained has the base alone to fall
from, R[0, j] − R[T, j].

Shapes: S scores (a matrix or a resampled one each), T stages, L = T + 1 rows, D documents or items, M earlier stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from keeptune.report.finding import Finding, UnitOfN, found
from keeptune.stats import LEVEL, Array, Interval, bootstrap, bootstrap_ratio

SECTION = "continual"


@dataclass(frozen=True, kw_only=True)
class Column:
    """What was asked of the base and of every checkpoint, by document or item."""

    name: str
    stage: int | None
    """Which stage was trained on it, from 1; None for other knowledge."""
    sums_LD: Array
    """Scores summed by document, fp64 [L, D]; the base's first."""
    weights_D: Array
    """What the sums are over: target tokens of a document, 1 for an item."""
    floor: float
    """What rounding alone can change of a score."""

    def scores_L(self) -> Array:
        """The base's score and that after each stage, [L]."""
        return self.sums_LD.sum(axis=1) / self.weights_D.sum()

    def change(self, later: int, earlier: int, level: float = LEVEL) -> Interval:
        """One row's score less another's: paired by document, a change is surer than either score."""
        return bootstrap_ratio(self.sums_LD[later] - self.sums_LD[earlier], self.weights_D, level=level)


def accuracy(score_SLT: Array) -> Array:
    """ACC = mean_j R[T, j] of a matrix, or of many at once: [..., L, T] → [...]."""
    return score_SLT[..., -1, :].mean(axis=-1)


def backward_transfer(score_SLT: Array) -> Array:
    """BWT = mean_{i<T}(R[T, i] − R[i, i]): [..., L, T] → [...]; needs two stages."""
    after_ST = np.diagonal(score_SLT[..., 1:, :], axis1=-2, axis2=-1)
    return (score_SLT[..., -1, :-1] - after_ST[..., :-1]).mean(axis=-1)


def forward_transfer(score_SLT: Array) -> Array:
    """FWT = mean_{i≥2}(R[i−1, i] − b_i): [..., L, T] → [...]; needs two stages."""
    before_S = np.diagonal(score_SLT[..., 1:-1, 1:], axis1=-2, axis2=-1)
    return (before_S - score_SLT[..., 0, 1:]).mean(axis=-1)


def falls(score_SL: Array) -> Array:
    """How far one column's score ends below each earlier stage's, R[l] − R[T] for 1 ≤ l < T: [..., L] → [..., T − 1].

    Chaudhry's forgetting of the column is the highest of them.
    """
    return score_SL[..., 1:-1] - score_SL[..., -1:]


def of_matrix(columns: Sequence[Column], formula: Callable[[Array], Array]) -> Interval:
    """A linear formula of the matrix of these columns, [..., L, T] → [...]; the columns' documents are independent."""
    rows = len(columns[0].sums_LD)
    # Its coefficients are its values on the matrices that are 1 in one place.
    units = np.eye(rows * len(columns)).reshape(-1, rows, len(columns))
    coefficients_TL = formula(units).reshape(rows, len(columns)).T
    samples = [
        np.stack([coefficients_L @ column.sums_LD, column.weights_D], axis=1)
        for coefficients_L, column in zip(coefficients_TL, columns, strict=True)
    ]
    return bootstrap(lambda *sums: sum(of[..., 0] / of[..., 1] for of in sums), *samples)


def score_findings(columns: Sequence[Column], unit_of_n: UnitOfN) -> Iterator[Finding]:
    """R, and each score − the base's."""
    for column in columns:
        for stage, sums_D in enumerate(column.sums_LD):
            part = f"stage {stage}" if stage else "base"
            score = bootstrap_ratio(sums_D, column.weights_D)
            yield found(SECTION, column.name, "score", score, unit_of_n, part=part)
            if stage:
                gained, floor = column.change(stage, 0), column.floor
                yield found(SECTION, column.name, "score_change", gained, unit_of_n, part=part, noise_floor=floor)


def summary_findings(columns: Sequence[Column], kind: str, unit_of_n: UnitOfN) -> Iterator[Finding]:
    """ACC, BWT, FWT and forgetting of columns with one unit.

    Args:
        columns: those of the stages 1 … T, if any, and any number that no stage trained.
        kind: what the columns are, `texts` or `tasks`: the subject of ACC, BWT and FWT.
    """
    staged = sorted((column for column in columns if column.stage), key=lambda column: column.stage or 0)
    make = partial(found, SECTION, unit_of_n=unit_of_n)
    if staged:
        yield make(kind, "acc", of_matrix(staged, accuracy), headline=True)
    if len(staged) > 1:
        floor = max(column.floor for column in staged)
        for name, formula in (("bwt", backward_transfer), ("fwt", forward_transfer)):
            yield make(kind, name, of_matrix(staged, formula), noise_floor=floor, headline=True)
        for column in staged[:-1]:
            best, interval = forgetting(column)
            yield make(column.name, "stage_forgetting", interval, part=f"stage {best}", noise_floor=column.floor,
                       headline=True)  # fmt: skip
    for column in columns:
        if not column.stage:
            yield make(column.name, "fall", column.change(0, -1), noise_floor=column.floor, headline=True)


def forgetting(column: Column) -> tuple[int, Interval]:
    """Chaudhry's f of a column, and the stage after which the column was best.

    The interval of a maximum, resampled as it is, would lie too high: among equal stages the luckiest counts. So the
    low end is the highest that Bonferroni's level leaves to any one fall; the high end needs no such care.
    """
    fall_M = falls(column.scores_L())
    earlier = range(1, len(fall_M) + 1)
    strict = [column.change(stage, -1, level=1 - (1 - LEVEL) / len(fall_M)).low for stage in earlier]
    plain = [column.change(stage, -1).high for stage in earlier]
    low = max((end for end in strict if end is not None), default=None)
    high = max((end for end in plain if end is not None), default=None)
    return 1 + int(fall_M.argmax()), Interval(
        value=float(fall_M.max()), low=low, high=high, documents=len(column.weights_D)
    )
