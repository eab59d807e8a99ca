"""What an audit's numbers say: did a model drift, is one of two surely better, or is there too little to tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from keeptune.audit.floor import FLOOR_MEASURES
from keeptune.audit.meter import Drift
from keeptune.errors import Diverged
from keeptune.stats import LEVEL, MIN_DOCUMENTS

SHOWN = {"kl": "KL(base‖tuned)", "l_f_rise": "L_f rise", "ce_change": "CE change", "agreement": "top-1 agreement"}
DRIFTED = "drifted"
NO_DRIFT = "not distinguishable from zero"
NO_EVIDENCE = "not enough evidence"
RULE = (
    f"{NO_EVIDENCE}: fewer than {MIN_DOCUMENTS} documents, or no interval. "
    f"{DRIFTED}: the whole interval lies farther from no drift (0; for agreement 1) than the noise floor. "
    f"{NO_DRIFT}: otherwise."
)

FIRST = "first better"
SECOND = "second better"
OVERLAP = "not distinguishable"
RULES = {
    "better": f"the {LEVEL:.0%} intervals do not overlap, and the values differ by more than the noise floor",
    NO_EVIDENCE: f"fewer than {MIN_DOCUMENTS} documents or items, or no interval",
    OVERLAP: "otherwise; as the intervals are those of each model alone, a difference may still be there",
}


def verdict(measure: str, interval: dict[str, Any], floor: float) -> str:
    """`RULE` for one measure of one text; the floor is that of `keeptune.audit.floor.bound_of`."""
    if not has_evidence(interval):
        return NO_EVIDENCE
    low, high = change(measure, interval)[1:]
    return DRIFTED if low > floor or high < -floor else NO_DRIFT


def verdicts(reading: dict[str, Any], floors: dict[str, Any]) -> dict[str, str]:
    """The verdict on each measure of a text, from its `Drift.summary()` and its `noise_floor()`."""
    return {
        name: verdict(name, reading["measures"][name], floors["measures"][name]["floor"]) for name in FLOOR_MEASURES
    }


def better(first: dict[str, Any], second: dict[str, Any], *, higher: bool) -> str:
    """`FIRST`, `SECOND`, `OVERLAP` or `NO_EVIDENCE`, see `RULES`.

    Args:
        first, second: value, low, high, documents, and `floor`, what rounding alone can give.
        higher: whether the higher value is the better one.
    """
    if not (has_evidence(first) and has_evidence(second)):
        return NO_EVIDENCE
    if abs(first["value"] - second["value"]) <= max(first["floor"], second["floor"]):
        return OVERLAP
    if first["high"] < second["low"]:
        return SECOND if higher else FIRST
    if second["high"] < first["low"]:
        return FIRST if higher else SECOND
    return OVERLAP


def has_evidence(interval: dict[str, Any]) -> bool:
    """Whether there are documents enough, and an interval."""
    return interval["low"] is not None and interval["documents"] >= MIN_DOCUMENTS


def change(measure: str, interval: dict[str, Any]) -> tuple[float, float, float]:
    """Value, low and high end of a measure with an interval as a change that is 0 where nothing drifted.

    For agreement that is how far it fell: 1 − agreement.
    """
    value, low, high = (interval[end] for end in ("value", "low", "high"))
    return (1 - value, 1 - high, 1 - low) if measure == "agreement" else (value, low, high)


def require_finite(drift: Drift, text: str) -> None:
    """Refuse readings that are no numbers: every comparison with them is false, and a gate would let them through.

    Raises:
        Diverged: a measure is NaN or infinite.
    """
    broken = [name for name, sum_D in zip(drift.documents, drift.sums_DM, strict=True) if not np.isfinite(sum_D).all()]
    if broken:
        raise Diverged(
            f"the models' predictions on {len(broken)} of {len(drift.documents)} documents of {text} are no numbers",
            "a checkpoint holds NaN or infinite weights, or overflows: audit an earlier one",
        )
