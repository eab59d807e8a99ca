"""The statistics that everything shares: intervals, exact tests, p-values, and one rule for many comparisons."""

from keeptune.stats.comparisons import holm, p_apart, p_outside
from keeptune.stats.exact import clopper_pearson, mcnemar, wilson
from keeptune.stats.interval import (
    LEVEL,
    MIN_DOCUMENTS,
    Array,
    Interval,
    IntervalRow,
    evenly_spaced,
    format_ends,
    format_interval,
    student,
)
from keeptune.stats.resampling import METHOD, RESAMPLES, bootstrap, bootstrap_ratio

__all__ = [
    "LEVEL",
    "METHOD",
    "MIN_DOCUMENTS",
    "RESAMPLES",
    "Array",
    "Interval",
    "IntervalRow",
    "bootstrap",
    "bootstrap_ratio",
    "clopper_pearson",
    "evenly_spaced",
    "format_ends",
    "format_interval",
    "holm",
    "mcnemar",
    "p_apart",
    "p_outside",
    "student",
    "wilson",
]
