"""Verdicts on intervals whose reading is plain, and the models that must have each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keeptune.audit.meter import MEASURES, Drift
from keeptune.audit.verdict import DRIFTED, NO_DRIFT, NO_EVIDENCE, require_finite, verdict
from keeptune.errors import Diverged
from keeptune.stats import MIN_DOCUMENTS


def interval(low: float | None, high: float | None, documents: int = 20) -> dict[str, Any]:
    value = 0.0 if low is None or high is None else (low + high) / 2
    return {"value": value, "low": low, "high": high, "documents": documents}


@pytest.mark.parametrize(
    ("measure", "low", "high", "expected"),
    [
        ("kl", 0.0, 0.0, NO_DRIFT),
        ("kl", 0.0005, 0.4, NO_DRIFT),
        ("kl", 0.001, 0.4, NO_DRIFT),
        ("kl", 0.0011, 0.002, DRIFTED),
        ("ce_change", -0.2, 0.1, NO_DRIFT),
        ("ce_change", 0.0002, 0.0008, NO_DRIFT),
        ("ce_change", -0.0008, -0.0002, NO_DRIFT),
        ("ce_change", 0.0002, 0.1, NO_DRIFT),
        ("ce_change", 0.002, 0.1, DRIFTED),
        ("l_f_rise", -0.1, -0.002, DRIFTED),
        ("agreement", 1.0, 1.0, NO_DRIFT),
        ("agreement", 0.97, 0.9995, NO_DRIFT),
        ("agreement", 0.97, 0.99, DRIFTED),
    ],
)
def test_drifted_is_wholly_beyond_the_floor(measure: str, low: float, high: float, expected: str) -> None:
    assert verdict(measure, interval(low, high), floor=0.001) == expected


@pytest.mark.parametrize("measure", ["kl", "agreement"])
def test_too_few_documents_are_no_evidence(measure: str) -> None:
    assert verdict(measure, interval(0.5, 0.6, MIN_DOCUMENTS - 1), floor=0.0) == NO_EVIDENCE
    assert verdict(measure, interval(0.5, 0.6, MIN_DOCUMENTS), floor=0.0) == DRIFTED
    assert verdict(measure, interval(None, None, 1), floor=0.0) == NO_EVIDENCE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_readings_that_are_no_numbers_are_refused(value: float) -> None:
    sums_DM = np.ones((3, len(MEASURES)))
    drift = Drift(sums_DM=sums_DM, tokens_D=np.ones(3), documents=["a", "b", "c"])
    require_finite(drift, "wiki")
    sums_DM[1, 2] = value
    with pytest.raises(Diverged, match="1 of 3 documents of wiki"):
        require_finite(drift, "wiki")
