"""Intervals whose unit of resampling is the document: tokens of one document are not independent."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
MIN_DOCUMENTS = 10
"""Fewer documents are too few for a verdict."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its bootstrap interval; `low` and `high` are None when one document cannot give an interval."""

    value: float
    low: float | None
    high: float | None
    documents: int
    """Number of documents that were resampled."""

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON."""
        return asdict(self)


def bootstrap_ratio(numerator_D: Array, denominator_D: Array, seed: int = 0) -> Interval:
    """Σ numerator / Σ denominator over documents, with a 95 % percentile interval from 2 000 paired resamples.

    With token counts below and summed losses above it is a mean per token; with the sums of two models it is their
    ratio, paired by document.

    Args:
        numerator_D, denominator_D: one number a document, fp64 [D]; the denominators positive in sum.

    Raises:
        ValueError: no documents, or lengths that differ.
    """
    if numerator_D.shape != denominator_D.shape or numerator_D.ndim != 1 or not len(numerator_D):
        raise ValueError(f"need one number a document in both: {numerator_D.shape} and {denominator_D.shape}")
    documents = len(numerator_D)
    value = float(numerator_D.sum() / denominator_D.sum())
    if documents == 1:
        return Interval(value=value, low=None, high=None, documents=1)
    counts_RD = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    ratios_R = (counts_RD @ numerator_D) / (counts_RD @ denominator_D)
    low, high = np.quantile(ratios_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high), documents=documents)
