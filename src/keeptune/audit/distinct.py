"""Whether one of two models is surely better, from what each of their reports says of it alone."""

from __future__ import annotations

from typing import Any

from keeptune.audit.verdict import NO_EVIDENCE, has_evidence
from keeptune.stats import LEVEL, MIN_DOCUMENTS

FIRST = "first better"
SECOND = "second better"
OVERLAP = "not distinguishable"
RULES = {
    "better": f"the {LEVEL:.0%} intervals do not overlap, and the values differ by more than the noise floor",
    NO_EVIDENCE: f"fewer than {MIN_DOCUMENTS} documents or items, or no interval",
    OVERLAP: "otherwise; as the intervals are those of each model alone, a difference may still be there",
}


def better(first: dict[str, Any], second: dict[str, Any], *, higher: bool) -> str:
    """`FIRST`, `SECOND`, `OVERLAP` or `keeptune.audit.verdict.NO_EVIDENCE`, see `RULES`.

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
