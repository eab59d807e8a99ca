"""Bounds: how they are written, and when they are broken."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.audit.gate import BROKEN, HELD, NOT_SURELY, Bound, check, parse_bounds
from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.errors import ConfigError


def make_report(measure: str, value: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    """A report of one measure of the text `wiki`, with a noise floor of 0.001."""
    interval = {"value": value, "low": low, "high": high, "documents": 20, **more}
    floors = {"wiki": {"measures": {measure: {"floor": 0.001}}}}
    return {"texts": {"wiki": {"measures": {measure: interval}}}, "noise_floor": {"texts": floors}}


def status(measure: str, limit: float, value: float, low: float | None, high: float | None, **more: Any) -> str:
    (outcome,) = check(
        [Bound(text="wiki", measure=measure, limit=limit)], make_report(measure, value, low, high, **more)
    )
    assert f"{measure} on wiki is {value:.4g}" in outcome["reason"]
    return str(outcome["status"])


def test_a_bound_holds_for_every_text_and_one_with_a_name_goes_before() -> None:
    bounds = parse_bounds(["kl=0.02", "self:agreement=-0.03", "wiki:kl=0.5", "ce_change=-1e-1"], ["wiki", "self"])
    assert [(bound.text, bound.measure, bound.limit) for bound in bounds] == [
        ("wiki", "kl", 0.5),
        ("wiki", "ce_change", -0.1),
        ("self", "kl", 0.02),
        ("self", "ce_change", -0.1),
        ("self", "agreement", -0.03),
    ]
    assert [str(bound) for bound in bounds[2:]] == ["kl ≤ 0.02", "ce_change ≤ -0.1", "agreement − 1 ≥ -0.03"]
    assert parse_bounds([], ["wiki"]) == []


@pytest.mark.parametrize(
    "given", [["kl=1", "kl=2"], ["wiki:kl=1", "wiki:kl=1"], [":kl=1"], ["kl="], ["=1"], ["kl=inf"]]
)
def test_bounds_written_badly_are_refused(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="--fail-above"):
        parse_bounds(given, ["wiki"])


def test_broken_only_where_the_interval_excludes_the_bound() -> None:
    assert status("kl", 0.02, 0.01, 0.005, 0.03) == HELD
    assert status("kl", 0.02, 0.02, 0.02, 0.02) == HELD
    assert status("kl", 0.02, 0.03, 0.02, 0.04) == NOT_SURELY
    assert status("kl", 0.02, 0.03, 0.021, 0.04) == BROKEN
    assert status("ce_change", -0.1, -0.05, -0.06, -0.04) == BROKEN
    assert status("ce_change", -0.1, -0.05, -0.12, -0.04) == NOT_SURELY
    assert status("ce_change", -0.1, 0.0, 0.0, 0.0) == BROKEN


def test_agreement_is_bounded_by_its_change_from_one() -> None:
    assert status("agreement", -0.03, 0.98, 0.96, 0.99) == HELD
    assert status("agreement", -0.03, 0.96, 0.94, 0.98) == NOT_SURELY
    assert status("agreement", -0.03, 0.95, 0.94, 0.96) == BROKEN
    assert status("agreement", 0.0, 1.0, 1.0, 1.0) == HELD


def test_rounding_breaks_no_bound() -> None:
    assert status("kl", 0.0, 0.0008, 0.0006, 0.001) == NOT_SURELY
    assert status("kl", 0.0, 0.0, 0.0, 0.0) == HELD
    assert status("kl", 0.0, 0.0015, 0.0011, 0.002) == BROKEN


def test_little_evidence_is_said_and_breaks_nothing() -> None:
    assert status("kl", 0.02, 3.0, 2.0, 4.0, documents=9) == NO_EVIDENCE
    assert status("kl", 0.02, 0.0, 0.0, 0.0, documents=9) == NO_EVIDENCE
    (outcome,) = check([Bound(text="wiki", measure="kl", limit=1)], make_report("kl", 2.0, None, None, documents=1))
    assert outcome["reason"] == "kl on wiki is 2, bound kl ≤ 1: not enough evidence: 1 document"
