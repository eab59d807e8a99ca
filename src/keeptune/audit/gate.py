"""Bounds on forgetting that a script can rely on: broken only when the interval excludes the bound."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keeptune.audit.floor import FLOOR_MEASURES
from keeptune.audit.verdict import NO_EVIDENCE, change, has_evidence
from keeptune.errors import ConfigError

HELD = "held"
BROKEN = "broken"
NOT_SURELY = "above the bound, not surely"

_AGREEMENT = "agreement"
_EXAMPLES = "write --fail-above kl=0.02, agreement=-0.03 or TEXT:ce_change=0.05"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The most that a measure may show on a text."""

    text: str
    measure: str
    limit: float
    """Nats per token; for agreement the change from 1 as it was given, such as −0.03."""

    def __str__(self) -> str:
        if self.measure == _AGREEMENT:
            return f"agreement − 1 ≥ {self.limit:g}"
        return f"{self.measure} ≤ {self.limit:g}"


def parse_bounds(given: Sequence[str], texts: Collection[str]) -> list[Bound]:
    """`["kl=0.02", "wiki:kl=0.05"]` → a bound for each text and measure; one with a text's name goes before.

    Raises:
        ConfigError: an unknown measure or text, no number, a bound given twice, or one that nothing can meet or break.
    """
    chosen: dict[tuple[str, str], float] = {}
    for entry in given:
        text, measure, limit = _parse(entry, texts)
        if (text, measure) in chosen:
            raise ConfigError(f"--fail-above {entry} is given twice", "keep one of them")
        chosen[text, measure] = limit
    bounds = []
    for text in texts:
        for measure in FLOOR_MEASURES:
            given_limit = chosen.get((text, measure), chosen.get(("", measure)))
            if given_limit is not None:
                bounds.append(Bound(text=text, measure=measure, limit=given_limit))
    return bounds


def _parse(entry: str, texts: Collection[str]) -> tuple[str, str, float]:
    """Text ("" for every one), measure and limit."""
    name, separator, number = entry.partition("=")
    text, colon, measure = name.rpartition(":")
    if not separator or measure not in FLOOR_MEASURES:
        raise ConfigError(
            f"--fail-above {entry} names no measure that can be bounded ({', '.join(FLOOR_MEASURES)})", _EXAMPLES
        )
    if colon and text not in texts:
        raise ConfigError(f"--fail-above {entry}: no text is called {text!r}", f"name one of {', '.join(texts)}")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ConfigError(f"--fail-above {entry}: {number!r} is no number", _EXAMPLES)
    if measure == _AGREEMENT and not -1 <= limit <= 0:
        raise ConfigError(
            f"--fail-above {entry}: agreement is bounded by its change from 1, a number from -1 to 0",
            "write agreement=-0.03 to fail where fewer than 97 % of the tokens agree",
        )
    if measure == "kl" and limit < 0:
        raise ConfigError(f"--fail-above {entry}: no model has a kl below 0", "give a bound of 0 or more")
    return text, measure, limit


def check(bounds: Sequence[Bound], report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a report says of each bound, for JSON.

    Args:
        report: its `texts` and `noise_floor`, as `keeptune audit` writes them.

    Returns:
        For each bound its fields, `bound` in words, `status` (`HELD`, `BROKEN`, `NOT_SURELY` or
        `keeptune.audit.verdict.NO_EVIDENCE`) and `reason`, one line with the numbers.
    """
    outcomes = []
    for bound in bounds:
        interval = report["texts"][bound.text]["measures"][bound.measure]
        floor = floor_of(report, bound.text, bound.measure)
        status = _status(bound, interval, floor)
        reason = _reason(bound, interval, floor, status)
        outcomes.append({**asdict(bound), "bound": str(bound), "status": status, "reason": reason})
    return outcomes


def floor_of(report: dict[str, Any], text: str, measure: str) -> float:
    """The noise floor of a measure on a text, from a report."""
    floor: float = report["noise_floor"]["texts"][text]["measures"][measure]["floor"]
    return floor


def _status(bound: Bound, interval: dict[str, Any], floor: float) -> str:
    if not has_evidence(interval):
        return NO_EVIDENCE
    value, low, _ = change(bound.measure, interval)
    limit = -bound.limit if bound.measure == _AGREEMENT else bound.limit
    if value <= limit:
        return HELD
    # A bound under the noise floor would fail models for the rounding of the arithmetic.
    surely_above = max(limit, floor) if limit >= 0 else limit
    return BROKEN if low > surely_above else NOT_SURELY


def _reason(bound: Bound, interval: dict[str, Any], floor: float, status: str) -> str:
    shown = f"{bound.measure} on {bound.text} is {interval['value']:.4g}"
    if interval["low"] is not None:
        shown += f" [{interval['low']:.4g}, {interval['high']:.4g}]"
    documents = f"{interval['documents']} document{'s' * (interval['documents'] != 1)}"
    why = {
        HELD: "the bound holds",
        BROKEN: f"the interval over {documents} excludes the bound",
        NOT_SURELY: f"{NOT_SURELY}: the interval over {documents} or the noise floor ({floor:.2g}) reaches it",
        NO_EVIDENCE: f"{NO_EVIDENCE}: {documents}",
    }[status]
    return f"{shown}, bound {bound}: {why}"
