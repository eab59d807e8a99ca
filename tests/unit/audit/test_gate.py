"""Bounds: how they are written, and when they are broken."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.audit.gate import BROKEN, HELD, NOT_SURELY, Bound, Kind, check, parse_bounds
from keeptune.audit.verdict import FLOOR_MEASURES, NO_EVIDENCE
from keeptune.errors import ConfigError


def make_report(measure: str, value: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    """A report of one measure of the text `wiki`, with a noise floor of 0.001."""
    nothing = {"value": float(measure == "agreement"), "low": None, "high": None, "documents": 1}
    intervals = {**dict.fromkeys(FLOOR_MEASURES, nothing)}
    intervals[measure] = {"value": value, "low": low, "high": high, "documents": 20, **more}
    floors = {"wiki": {"measures": {name: {"floor": 0.001} for name in FLOOR_MEASURES}}}
    return {"texts": {"wiki": {"measures": intervals}}, "noise_floor": {"texts": floors}}


def status(measure: str, limit: float, value: float, low: float | None, high: float | None, **more: Any) -> str:
    (outcome,) = check(
        [Bound(name="wiki", measure=measure, limit=limit)], make_report(measure, value, low, high, **more)
    )
    assert f"{measure} on wiki is {value:.4g}" in outcome["reason"]
    return str(outcome["status"])


KINDS: dict[str, Kind] = {"wiki": "text", "self": "text", "arc": "task", "bad": "prompts"}


def test_bounds_are_parsed() -> None:
    bounds = parse_bounds(["kl=0.02", "self:agreement=-0.03", "arc:accuracy=-0.1", "bad:refusals=0.2"], KINDS)
    assert [(bound.name, bound.measure, bound.limit) for bound in bounds] == [
        ("", "kl", 0.02),
        ("self", "agreement", -0.03),
        ("arc", "accuracy", -0.1),
        ("bad", "refusals", 0.2),
    ]
    assert list(map(str, bounds)) == [
        "kl ≤ 0.02",
        "agreement − 1 ≥ -0.03",
        "accuracy change ≥ -0.1",
        "refusals change ≤ 0.2",
    ]
    assert parse_bounds([], {}) == []
    both = parse_bounds(["refusals=0.2", "refusals=-0.2"], KINDS)
    assert [bound.falls for bound in both] == [False, True]


@pytest.mark.parametrize(
    "given",
    [
        ["kl=1", "kl=2"],
        ["wiki:kl=1", "wiki:kl=1"],
        [":kl=1"],
        ["kl="],
        ["=1"],
        ["kl=inf"],
        ["kl=-1"],
        ["arc:kl=1"],
        ["wiki:accuracy=-0.1"],
        ["accuracy=0.1"],
        ["agreement=0.97"],
        ["refusals=-2"],
        ["other:kl=1"],
    ],
)
def test_bounds_written_badly_are_refused(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="--fail-above"):
        parse_bounds(given, KINDS)


def test_a_measure_that_is_not_taken_cannot_be_bounded() -> None:
    with pytest.raises(ConfigError, match="no measure that is taken"):
        parse_bounds(["refusals=-0.1"], {"wiki": "text"})


def test_a_bound_holds_for_everything_and_one_with_a_name_goes_before() -> None:
    report = make_report("kl", 0.05, 0.04, 0.06)
    report["texts"]["self"] = report["texts"]["wiki"]
    report["noise_floor"]["texts"]["self"] = report["noise_floor"]["texts"]["wiki"]
    outcomes = check(parse_bounds(["kl=0.02", "self:kl=0.5"], KINDS), report)
    assert [(one["name"], one["limit"], one["status"]) for one in outcomes] == [
        ("wiki", 0.02, BROKEN),
        ("self", 0.5, HELD),
    ]


def share(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_bounds_on_tasks_and_refusals() -> None:
    report = make_report("kl", 0.0, 0.0, 0.0)
    plain = {"items": 50, "change": share(-0.2, -0.3, -0.1), "agreement": share(0.6, 0.5, 0.7)}
    few = {"items": 5, "change": share(-0.9, -1.0, -0.8), "agreement": share(0.1, 0.0, 0.2)}
    formats = {"plain": {"per_character": plain}, "chat": {"per_character": few}}
    report["tasks"] = {"arc": {"headline": "per_character", "formats": formats}}
    fell, rose = {"change": share(-0.3, -0.4, -0.2)}, {"change": share(0.3, 0.2, 0.4)}
    report["safety"] = {"sets": {"bad": {"asked": 50, "detectors": {"rules": fell, "likelihood": rose}}}}

    def statuses(bound: str) -> dict[str, str]:
        return {one["part"]: one["status"] for one in check(parse_bounds([bound], KINDS), report) if one["part"]}

    assert statuses("accuracy=-0.05") == {"plain": BROKEN, "chat": NO_EVIDENCE}
    assert statuses("accuracy=-0.15") == {"plain": NOT_SURELY, "chat": NO_EVIDENCE}
    assert statuses("accuracy=-0.2") == {"plain": HELD, "chat": NO_EVIDENCE}
    assert statuses("agreement=-0.25") == {"plain": BROKEN, "chat": NO_EVIDENCE}
    assert statuses("refusals=-0.1") == {"rules": BROKEN, "likelihood": HELD}
    assert statuses("refusals=0.1") == {"rules": HELD, "likelihood": BROKEN}
    outcome = check(parse_bounds(["arc:accuracy=-0.05"], KINDS), report)[0]
    assert outcome["reason"] == (
        "accuracy change on arc (plain) is -0.2 [-0.3, -0.1], bound accuracy change ≥ -0.05: "
        "the interval over 50 items excludes the bound"
    )


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
    (outcome,) = check([Bound(name="wiki", measure="kl", limit=1)], make_report("kl", 2.0, None, None, documents=1))
    assert outcome["reason"] == "kl on wiki is 2, bound kl ≤ 1: not enough evidence: 1 document"
