"""The bootstrap of the house: studentised, over documents or items, because the tokens of one document depend.

Shapes: D documents, K columns that are summed over documents, R resamples, P columns and their products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from keeptune.stats.interval import LEVEL, MIN_DOCUMENTS, Array, Interval, student

RESAMPLES = 4000
METHOD = f"{LEVEL:.0%} studentised bootstrap (bootstrap-t), {RESAMPLES} resamples"
STEADY = 0.25
"""Documents' worth of the sample's own variance in that of every resample."""
# Counts of up to this many documents are kept, 8 MB a number of documents.
_KEPT = 256


def bootstrap_ratio(
    numerator_D: Array,
    denominator_D: Array,
    seed: int = 0,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    level: float = LEVEL,
) -> Interval:
    """Σ numerator / Σ denominator over documents, with the interval of `bootstrap`.

    With summed losses above and token counts below it is a mean per token. With the sums of two models it is their
    ratio, paired by document. Both are fp64 [D], one number a document; the sum of the denominators is positive.
    Raises `ValueError` for no documents, or lengths that differ.
    """
    if numerator_D.shape != denominator_D.shape or numerator_D.ndim != 1 or not len(numerator_D):
        raise ValueError(f"need one number a document in both: {numerator_D.shape} and {denominator_D.shape}")
    value = float(numerator_D.sum() / denominator_D.sum())
    # Sums of residuals are exactly 0 where all documents have one ratio.
    residual_D2 = np.stack([numerator_D - value * denominator_D, denominator_D], axis=1)
    ends = {"least": least, "most": most, "level": level}
    return bootstrap(lambda sums: value + sums[..., 0] / sums[..., 1], residual_D2, seed=seed, **ends)


def bootstrap(
    of_sums: Callable[..., Any],
    *samples_DK: Array,
    seed: int = 0,
    least: float = -math.inf,
    most: float = math.inf,
    level: float = LEVEL,
) -> Interval:
    """A statistic that is a smooth function of sums over documents, with its studentised bootstrap interval.

    This is the bootstrap-t (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 12): the distribution of
    (resampled value − value) / (standard error of the resample) replaces that of Student's t. Standard errors are those
    of the delta method. Two constants are chosen by measurement (docs/decisions.md): `STEADY` keeps a resample of
    nearly equal documents from dividing by nearly 0, and `_tail` reaches farther out than the level says, because few
    documents seldom hold the rare large ones. `benchmarks/bench_coverage.py` measures what the intervals cover.

    Args:
        of_sums: from the sums of each sample's columns, [..., K] each, to the statistic, [...]. It must work on many
            resamples at once, and be differentiable.
        samples_DK: one or more samples that are resampled independently, a row a document, fp64 [D, K]. Their numbers
            of documents and columns may differ.
        seed: of the resamples; one more for every further sample.
        least, most: the range of the statistic, at which the interval ends: 0 for a KL, 0 and 1 for a share, 1 for R².

    Raises:
        ValueError: a sample without documents.
    """
    documents = min(len(sample_DK) for sample_DK in samples_DK)
    if documents < 1:
        raise ValueError("a bootstrap needs one document or more")
    parts = [_resampled(sample_DK, seed + place) for place, sample_DK in enumerate(samples_DK)]
    with np.errstate(divide="ignore", invalid="ignore"):
        value_R, error_R = _with_errors(of_sums, parts, [len(sample_DK) for sample_DK in samples_DK])
        value, error = float(value_R[0]), float(error_R[0])
        if documents == 1:
            return Interval(value=value, low=None, high=None, documents=1)
        if error == 0:
            return Interval(value=value, low=value, high=value, documents=documents)
        steady_R = np.sqrt((documents * error_R[1:] ** 2 + STEADY * error**2) / (documents + STEADY))
        t_R = (value_R[1:] - value) / steady_R
    place = max(round(_tail(documents, level) * (len(t_R) + 1)) - 1, 0)
    # A resample without a value counts at both ends.
    longest = np.partition(np.where(np.isnan(t_R), np.inf, t_R), -1 - place)[-1 - place]
    lowest = np.partition(np.where(np.isnan(t_R), -np.inf, t_R), place)[place]
    if documents < MIN_DOCUMENTS:
        half = student((1 + level) / 2, documents - 1)
        lowest, longest = min(lowest, -half), max(longest, half)
    low, high = value - max(longest, 0.0) * error, value - min(lowest, 0.0) * error
    return Interval(value=value, low=float(max(low, least)), high=float(min(high, most)), documents=documents)


def _tail(documents: int, level: float) -> float:
    """The share of resamples left out at either end, below (1 − level) / 2."""
    return float((1 - level) / 2 * max(1 - 1.6 * documents ** (-1 / 3), 0.0))


def _resampled(sample_DK: Array, seed: int) -> tuple[Array, Array]:
    """Sums of the columns, fp64 [1 + R, K], and their scatter about the mean, [1 + R, K, K]; the sample first."""
    documents, columns = sample_DK.shape
    mean_K = sample_DK.mean(axis=0)
    from_mean_DK = sample_DK - mean_K
    first, second = np.triu_indices(columns)
    values_DP = np.concatenate([from_mean_DK, from_mean_DK[:, first] * from_mean_DK[:, second]], axis=1)
    sums_RP = np.concatenate([counts_RD @ values_DP for counts_RD in _counts(documents, seed)])
    sums_RK = sums_RP[:, :columns]
    scatter_RKK = np.empty((len(sums_RP), columns, columns))
    scatter_RKK[:, first, second] = scatter_RKK[:, second, first] = sums_RP[:, columns:]
    scatter_RKK -= sums_RK[:, :, None] * sums_RK[:, None, :] / documents
    return documents * mean_K + sums_RK, scatter_RKK


def _with_errors(
    of_sums: Callable[..., Any], parts: Sequence[tuple[Array, Array]], sizes: Sequence[int]
) -> tuple[Array, Array]:
    """The statistic and its standard error by the delta method, [1 + R] each; derivatives are central differences."""
    sums = [sums_RK for sums_RK, _ in parts]
    value_R = np.asarray(of_sums(*sums), dtype=np.float64)
    variance_R = np.zeros(len(value_R))
    for part, ((sums_RK, scatter_RKK), documents) in enumerate(zip(parts, sizes, strict=True)):
        slope_RK = np.empty_like(sums_RK)
        for column in range(sums_RK.shape[1]):
            step = 1e-5 * (max(abs(sums_RK[0, column]), math.sqrt(max(scatter_RKK[0, column, column], 0.0))) or 1.0)
            ends = []
            for moved in (step, -step):
                moved_RK = sums_RK.copy()
                moved_RK[:, column] += moved
                ends.append(of_sums(*sums[:part], moved_RK, *sums[part + 1 :]))
            slope_RK[:, column] = (ends[0] - ends[1]) / (2 * step)
        spread_R = np.einsum("rk,rkl,rl->r", slope_RK, scatter_RKK, slope_RK)
        variance_R += spread_R * documents / max(documents - 1, 1)
    return value_R, np.sqrt(np.maximum(variance_R, 0.0))


def _counts(documents: int, seed: int) -> Iterable[Array]:
    """How often each document occurs in the sample, once, and in each resample: fp64 [1 + R, D] in parts."""
    return _kept_counts(documents, seed) if documents <= _KEPT else _drawn_counts(documents, seed)


@lru_cache(maxsize=8)
def _kept_counts(documents: int, seed: int) -> tuple[Array, ...]:
    """The same for few documents: an audit asks for them hundreds of times."""
    return tuple(_drawn_counts(documents, seed))


def _drawn_counts(documents: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    yield np.ones((1, documents))
    rows = max(_KEPT * RESAMPLES // documents, 1)
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = generator.integers(documents, size=(size, documents)) + documents * np.arange(size)[:, None]
        counted = np.bincount(drawn.ravel(), minlength=size * documents)
        yield counted.reshape(size, documents).astype(np.float64)
