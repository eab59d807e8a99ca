"""How often intervals hold the truth, and how often p-values are wrong, over kinds of documents and their number.

    python benchmarks/bench_coverage.py --quick      # 50 replications a cell, prints one JSON line last
    python benchmarks/bench_coverage.py              # writes results/bench_coverage.json, ten minutes of one core

A replication draws documents and asks `bootstrap_ratio`, the function that audits call, for the interval of a mean per
token. Beside it stand the percentile interval (what keeptune had before), BCa and Student's t on the same documents. In
`clustered` kinds the documents have unequal lengths (lognormal, median 300 tokens) and the tokens of a document share
the document's mean, with noise of their own. BOUND was set before the run: at a nominal .95, no kind and no number of
documents from LEAST on may be covered less often. FALSE: of true hypotheses "the mean is m", at most this share may
have a p below .05 / 20, Holm's first step among 20 comparisons.

Shapes: M replications, D documents, R resamples.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit
from shared import finish

from keeptune.audit.paired import difference
from keeptune.stats import Interval, bootstrap_ratio, p_outside, wilson

Array = npt.NDArray[np.float64]

BOUND, LEAST = 0.93, 12
FALSE, COMPARISONS = 2 * 0.05 / 20, 20
DOCUMENTS = (10, 12, 16, 24, 40, 64, 100, 200)
SHAPES = ("normal", "exponential", "lognormal")
KINDS = (*SHAPES, *(f"clustered {shape}" for shape in SHAPES), "clustered, short ones drift more")
# Not bounded: long tails on both sides, and a drift that seven documents of ten do not have.
BEYOND = ("student_t3", "mostly zero")
RESAMPLES = 2000
TAILS = np.array([0.025, 0.975])
ITEMS = (12, 20, 50, 200)
# Shares of items that are lost and gained.
CHANGES = ((0.02, 0.02), (0.05, 0.02), (0.1, 0.1), (0.2, 0.05), (0.35, 0.02), (0.3, 0.3))
SHARES = (0.02, 0.1, 0.3, 0.5, 0.8, 0.97)


def means(shape: str, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """Means of documents, whose expectation is 1."""
    if shape == "normal":
        return rng.normal(1.0, 0.5, size)
    if shape == "exponential":
        return rng.exponential(1.0, size)
    if shape == "lognormal":
        return rng.lognormal(-0.5, 1.0, size)
    if shape == "student_t3":
        return 1.0 + rng.standard_t(3, size)
    return (rng.random(size) < 0.3) * rng.exponential(1 / 0.3, size)


def drawn(kind: str, size: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Sums and tokens of documents, fp64 [M, D], and the true mean per token."""
    clustered, _, shape = kind.partition(" ")
    if not clustered.startswith("clustered"):
        return means(kind, size, rng), np.ones(size), 1.0
    short = shape not in SHAPES
    spread = 1.0 if short else 0.7
    tokens_MD = np.maximum(np.round(rng.lognormal(np.log(300), spread, size)), 1.0)
    mean_MD = rng.exponential(1.0, size) * np.sqrt(300 / tokens_MD) if short else means(shape, size, rng)
    sums_MD = tokens_MD * mean_MD + 1.5 * np.sqrt(tokens_MD) * rng.standard_normal(size)
    # E[√(300·tokens)] / E[tokens], of lognormal lengths.
    return sums_MD, tokens_MD, float(np.exp(-3 * spread**2 / 8)) if short else 1.0


def others(sums_MD: Array, tokens_MD: Array, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
    """The ends of the intervals beside ours, fp64 [M] each."""
    documents = sums_MD.shape[1]
    counts_RD = rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES).astype(np.float64)
    value_M = sums_MD.sum(axis=1) / tokens_MD.sum(axis=1)
    resampled_RM = np.sort((counts_RD @ sums_MD.T) / (counts_RD @ tokens_MD.T), axis=0)
    low_M, high_M = np.quantile(resampled_RM, TAILS, axis=0)
    residual_MD = sums_MD - value_M[:, None] * tokens_MD
    error_M = np.sqrt((residual_MD**2).sum(axis=1) * documents / (documents - 1)) / tokens_MD.sum(axis=1)
    half_M = stdtrit(documents - 1, TAILS[1]) * error_M
    without_MD = (sums_MD.sum(axis=1)[:, None] - sums_MD) / (tokens_MD.sum(axis=1)[:, None] - tokens_MD)
    far_MD = without_MD.mean(axis=1)[:, None] - without_MD
    with np.errstate(invalid="ignore", divide="ignore"):
        skew_M = np.nan_to_num((far_MD**3).sum(axis=1) / (6 * (far_MD**2).sum(axis=1) ** 1.5))
        below_M = (resampled_RM < value_M).mean(axis=0) + (resampled_RM == value_M).mean(axis=0) / 2
        shift_M = ndtri(np.clip(below_M, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    ends = []
    for tail in TAILS:
        moved_M = shift_M + ndtri(tail)
        place_M = (ndtr(shift_M + moved_M / (1 - skew_M * moved_M)) * RESAMPLES).astype(int).clip(0, RESAMPLES - 1)
        ends.append(resampled_RM[place_M, np.arange(len(value_M))])
    return {
        "percentile": (low_M, high_M),
        "BCa": (ends[0], ends[1]),
        "student": (value_M - half_M, value_M + half_M),
    }


def covered(low_M: Array, high_M: Array, truth: float) -> float:
    return round(float(((low_M <= truth) & (truth <= high_M)).mean()), 4)


def cell(kind: str, documents: int, replications: int, seed: int) -> dict[str, Any]:
    """One kind and number of documents: the coverage of each interval, its width, and wrong p-values."""
    rng = np.random.default_rng(seed)
    sums_MD, tokens_MD, truth = drawn(kind, (replications, documents), rng)
    start = time.perf_counter()
    ours = [bootstrap_ratio(*both) for both in zip(sums_MD, tokens_MD, strict=True)]
    seconds = time.perf_counter() - start
    low_M, high_M = (np.array([getattr(interval, end) for interval in ours]) for end in ("low", "high"))
    beside = others(sums_MD, tokens_MD, rng)
    wide_M = beside["student"][1] - beside["student"][0]
    p_M = np.array([p_outside(interval, truth, truth) for interval in ours])
    return {
        "kind": kind,
        "documents": documents,
        "replications": replications,
        "covered": covered(low_M, high_M, truth),
        "truth_above": round(float((high_M < truth).mean()), 4),
        "truth_below": round(float((low_M > truth).mean()), 4),
        **{name: covered(*both, truth) for name, both in beside.items()},
        "width_to_student": round(float(np.median((high_M - low_M)[wide_M > 0] / wide_M[wide_M > 0])), 3),
        "p_below_a_twentieth_of_.05": round(float((p_M < 0.05 / COMPARISONS).mean()), 4),
        "ms_an_interval": round(1000 * seconds / replications, 2),
    }


def of_shares(replications: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The intervals of a change of paired answers, and of a share of items."""
    rows = []

    def row(what: str, items: int, truth: float, found: list[Interval]) -> None:
        low_M, high_M = (np.array([getattr(interval, end) for interval in found]) for end in ("low", "high"))
        within = bool(low_M.min() >= (0.0 if what == "share" else -1.0) and high_M.max() <= 1.0)
        rows.append({"what": what, "items": items, "truth": round(truth, 4), "covered": covered(low_M, high_M, truth)})
        rows[-1] |= {"in_range": within}

    for items in ITEMS:
        for lost, gained in CHANGES:
            counts = rng.multinomial(items, [lost, gained, 1 - lost - gained], size=replications)
            row("change", items, gained - lost, [difference(int(one[0]), int(one[1]), items) for one in counts])
        for share in SHARES:
            row("share", items, share, [wilson(int(one), items) for one in rng.binomial(items, share, replications)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 replications a cell, nothing written")
    quick = parser.parse_args().quick
    replications = 50 if quick else 3000
    asked = [(kind, documents) for kind in (*KINDS, *BEYOND) for documents in DOCUMENTS]
    cells = [cell(*which, replications, seed) for seed, which in enumerate(asked, start=1000)]
    bounded = [one for one in cells if one["kind"] in KINDS and one["documents"] >= LEAST]
    worst = min(bounded, key=lambda one: one["covered"])
    wrong = [one for one in bounded if one["p_below_a_twentieth_of_.05"] > FALSE]
    result = {
        "bound": BOUND,
        "least_documents": LEAST,
        "false_bound": FALSE,
        "worst": {key: worst[key] for key in ("kind", "documents", "covered")},
        "met": worst["covered"] >= BOUND,
        "false_beyond_bound": [[one["kind"], one["documents"], one["p_below_a_twentieth_of_.05"]] for one in wrong],
        "sd_of_coverage": round(float(np.sqrt(BOUND * (1 - BOUND) / replications)), 4),
        "cells": cells,
        "items": of_shares(replications, np.random.default_rng(1)),
    }
    finish("bench_coverage", result, quick=quick)


if __name__ == "__main__":
    main()
