"""Continual learning from a score matrix: what stages taught, what later ones took away, what they gave in advance.

R[i, j] is the score on column j after stage i, the higher the better; row 0 is the base, b_j, which no stage trained.
ACC, BWT and FWT are those of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), forgetting that of Chaudhry et al. 2018
(arXiv 1801.10112): f_j = max_{1≤l<T} R[l, j] − R[T, j]. As in the original the base's row is not in the maximum: what
stage j taught is forgotten, not what the base was good at. A column that no stage trained has the base alone to fall
from, R[0, j] − R[T, j].

Shapes: S scores (a matrix or a resampled one each), T stages, L = T + 1 rows, D documents or items, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from keeptune.report.finding import Finding, UnitOfN, found
from keeptune.stats import TAILS, Array, Interval, resampled_counts

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

    def resampled_RL(self, seed: int) -> Array:
        """The scores on 2 000 resamples of the documents, the same for every row; another seed for every column."""
        counts_RD = resampled_counts(len(self.weights_D), seed)
        return (counts_RD @ self.sums_LD.T) / (counts_RD @ self.weights_D)[:, None]


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


def score_findings(columns: Sequence[Column], unit_of_n: UnitOfN) -> Iterator[Finding]:
    """R, and each score − the base's: paired by document, a change is surer than either score."""
    for seed, column in enumerate(columns):
        scores_L, resampled_RL = column.scores_L(), column.resampled_RL(seed)
        documents = len(column.weights_D)
        for stage, (value, resampled_R) in enumerate(zip(scores_L, resampled_RL.T, strict=True)):
            part = f"stage {stage}" if stage else "base"
            score = Interval.of_resamples(float(value), resampled_R, documents)
            yield found(SECTION, column.name, "score", score, unit_of_n, part=part)
            if stage:
                gained = Interval.of_resamples(value - scores_L[0], resampled_R - resampled_RL[:, 0], documents)
                floor = column.floor
                yield found(SECTION, column.name, "score_change", gained, unit_of_n, part=part, noise_floor=floor)


def summary_findings(columns: Sequence[Column], kind: str, unit_of_n: UnitOfN) -> Iterator[Finding]:
    """ACC, BWT, FWT and forgetting of columns with one unit.

    Args:
        columns: those of the stages 1 … T, if any, and any number that no stage trained.
        kind: what the columns are, `texts` or `tasks`: the subject of ACC, BWT and FWT.
    """
    resampled = {column.name: column.resampled_RL(seed) for seed, column in enumerate(columns)}
    staged = sorted((column for column in columns if column.stage), key=lambda column: column.stage or 0)
    make = partial(found, SECTION, unit_of_n=unit_of_n)
    if staged:
        score_LT = np.stack([column.scores_L() for column in staged], axis=1)
        resampled_RLT = np.stack([resampled[column.name] for column in staged], axis=2)
        documents = min(len(column.weights_D) for column in staged)
        mean = Interval.of_resamples(float(accuracy(score_LT)), accuracy(resampled_RLT), documents)
        yield make(kind, "acc", mean, headline=True)
    if len(staged) > 1:
        floor = max(column.floor for column in staged)
        for name, formula in (("bwt", backward_transfer), ("fwt", forward_transfer)):
            interval = Interval.of_resamples(float(formula(score_LT)), formula(resampled_RLT), documents)
            yield make(kind, name, interval, noise_floor=floor, headline=True)
        for column in staged[:-1]:
            best, interval = forgetting(column, resampled[column.name])
            yield make(column.name, "stage_forgetting", interval, part=f"stage {best}", noise_floor=column.floor,
                       headline=True)  # fmt: skip
    for column in columns:
        if not column.stage:
            scores_L, resampled_RL = column.scores_L(), resampled[column.name]
            lost_R = resampled_RL[:, 0] - resampled_RL[:, -1]
            interval = Interval.of_resamples(scores_L[0] - scores_L[-1], lost_R, len(column.weights_D))
            yield make(column.name, "fall", interval, noise_floor=column.floor, headline=True)


def forgetting(column: Column, resampled_RL: Array) -> tuple[int, Interval]:
    """Chaudhry's f of a column, and the stage after which the column was best.

    The interval of a maximum, resampled as it is, would lie too high: among equal stages the luckiest counts. So the
    low end is the highest that Bonferroni's level leaves to any one fall; the high end needs no such care.
    """
    fall_M, fall_RM = falls(column.scores_L()), falls(resampled_RL)
    interval = Interval.of_resamples(float(fall_M.max()), fall_RM.max(axis=1), len(column.weights_D))
    if interval.low is not None:
        low = float(np.quantile(fall_RM, TAILS[0] / len(fall_M), axis=0).max())
        interval = replace(interval, low=low, high=float(np.quantile(fall_RM, TAILS[1], axis=0).max()))
    return 1 + int(fall_M.argmax()), interval
