"""Continual learning from a score matrix: what stages taught, what later ones took away, what they gave in advance.

R[i, j] is the score on column j after stage i, the higher the better; row 0 is the base, b_j, which no stage trained.
ACC, BWT and FWT are those of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), forgetting that of Chaudhry et al. 2018
(arXiv 1801.10112): f_j = max_{1≤l<T} R[l, j] − R[T, j]. As in the original the base's row is not in the maximum: what
stage j taught is forgotten, not what the base was good at. A column that no stage trained has the base alone to fall
from, R[0, j] − R[T, j].

Shapes: S scores (a matrix or a resampled one each), T stages, L = T + 1 rows, D documents or items, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keeptune.audit.verdict import NO_DRIFT, NO_EVIDENCE, has_evidence
from keeptune.stats import MIN_DOCUMENTS, TAILS, Array, Interval, resampled_counts

HIGHER, LOWER = "above zero", "below zero"
DEFINITIONS = {
    "acc": "mean over the stages' columns of the score after the last stage",
    "bwt": "mean over all stages but the last: score on its column after the last stage − right after it",
    "fwt": "mean over all stages but the first: score on its column right before it − the base's",
    "chaudhry": "for all stages but the last: the best score on its column after any earlier stage (the base does not "
    "count) − after the last; the interval holds for the best of them all (Bonferroni)",
    "other": "for a column that no stage trained: the base's score − after the last stage",
    "verdict": f"{NO_EVIDENCE}: a column has fewer than {MIN_DOCUMENTS} documents or items, or there are no two "
    f"stages. {HIGHER}, {LOWER}: the whole interval lies farther from 0 than the noise floor. {NO_DRIFT}: otherwise",
}


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


def cells(columns: Sequence[Column]) -> list[list[dict[str, Any]]]:
    """R, for JSON: rows from the base to the last stage, in each a cell a column with its interval.

    A cell's `change` is its score − the base's with a verdict; paired by document, it is surer than either.
    """
    rows: list[list[dict[str, Any]]] = [[] for _ in columns[0].sums_LD]
    for seed, column in enumerate(columns):
        scores_L, resampled_RL = column.scores_L(), column.resampled_RL(seed)
        documents = len(column.weights_D)
        for row, value, resampled_R in zip(rows, scores_L, resampled_RL.T, strict=True):
            change = _interval(value - scores_L[0], resampled_R - resampled_RL[:, 0], documents)
            change["verdict"] = _verdict(change, column.floor)
            row.append({**_interval(value, resampled_R, documents), "change": change})
    return rows


def summary(columns: Sequence[Column]) -> dict[str, Any]:
    """ACC, BWT, FWT and forgetting of columns with one unit, for JSON; see `DEFINITIONS`.

    Args:
        columns: those of the stages 1 … T, if any, and any number that no stage trained.

    Returns:
        `acc`, `bwt`, `fwt` (None without columns of stages; the last two also where T is 1), `chaudhry` for the stages
        1 … T − 1 and `other`, each a value with its interval; all but `acc` with a verdict.
    """
    resampled = {column.name: column.resampled_RL(seed) for seed, column in enumerate(columns)}
    staged = sorted((column for column in columns if column.stage), key=lambda column: column.stage or 0)
    result: dict[str, Any] = {"acc": None, "bwt": None, "fwt": None, "chaudhry": [], "other": []}
    if staged:
        score_LT = np.stack([column.scores_L() for column in staged], axis=1)
        resampled_RLT = np.stack([resampled[column.name] for column in staged], axis=2)
        documents = min(len(column.weights_D) for column in staged)
        result["acc"] = _interval(accuracy(score_LT), accuracy(resampled_RLT), documents)
    if len(staged) > 1:
        floor = max(column.floor for column in staged)
        for name, formula in (("bwt", backward_transfer), ("fwt", forward_transfer)):
            interval = _interval(formula(score_LT), formula(resampled_RLT), documents)
            result[name] = {**interval, "verdict": _verdict(interval, floor)}
        result["chaudhry"] = [_forgetting(column, resampled[column.name]) for column in staged[:-1]]
    result["other"] = [_fall(column, resampled[column.name]) for column in columns if not column.stage]
    return result


def _forgetting(column: Column, resampled_RL: Array) -> dict[str, Any]:
    """Chaudhry's f of a column.

    The interval of a maximum, resampled as it is, would lie too high: among equal stages the luckiest counts. So the
    low end is the highest that Bonferroni's level leaves to any one fall; the high end needs no such care.
    """
    fall_M, fall_RM = falls(column.scores_L()), falls(resampled_RL)
    interval = _interval(fall_M.max(), fall_RM.max(axis=1), len(column.weights_D))
    if interval["low"] is not None:
        interval["low"] = float(np.quantile(fall_RM, TAILS[0] / len(fall_M), axis=0).max())
        interval["high"] = float(np.quantile(fall_RM, TAILS[1], axis=0).max())
    best = 1 + int(fall_M.argmax())
    return {"column": column.name, "best_stage": best, **interval, "verdict": _verdict(interval, column.floor)}


def _fall(column: Column, resampled_RL: Array) -> dict[str, Any]:
    scores_L = column.scores_L()
    interval = _interval(scores_L[0] - scores_L[-1], resampled_RL[:, 0] - resampled_RL[:, -1], len(column.weights_D))
    return {"column": column.name, **interval, "verdict": _verdict(interval, column.floor)}


def _interval(value: float | Array, resampled_R: Array, documents: int) -> dict[str, Any]:
    """For JSON; `documents` are those of the column that has the fewest."""
    return Interval.of_resamples(float(value), resampled_R, documents).as_dict()


def _verdict(interval: dict[str, Any], floor: float) -> str:
    if not has_evidence(interval):
        return NO_EVIDENCE
    if interval["low"] > floor:
        return HIGHER
    return LOWER if interval["high"] < -floor else NO_DRIFT
