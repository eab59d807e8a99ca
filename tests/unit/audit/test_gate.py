"""Bounds: how they are written, and when they are broken."""

from __future__ import annotations

import pytest

from keeptune.audit.drift import Texts
from keeptune.audit.gate import Bound, broken, check, parse_bounds
from keeptune.audit.safety.section import Refusals
from keeptune.audit.section import AnySection
from keeptune.audit.tasks.section import Tasks
from keeptune.errors import ConfigError
from keeptune.report.document import OutcomeStatus, SectionRecord, Status
from keeptune.report.finding import Finding, found
from keeptune.stats import Interval
from tests.helpers.audit_report import make_report

HELD, BROKEN, NOT_SURELY, NO_EVIDENCE = OutcomeStatus
NAMED: dict[str, AnySection] = {"wiki": Texts, "self": Texts, "arc": Tasks, "bad": Refusals}


def of_text(
    measure: str, value: float, low: float | None, high: float | None, n: int = 20, on: str = "wiki"
) -> Finding:
    """A finding on a text, with a noise floor of 0.001."""
    interval = Interval(value=value, low=low, high=high, documents=n)
    return found("drift", on, measure, interval, "document", noise_floor=0.001, headline=measure == "kl")


def status(
    measure: str, limit: float, value: float, low: float | None, high: float | None, n: int = 20
) -> OutcomeStatus:
    bound = Bound(name="wiki", measure=measure, limit=limit)
    (outcome,) = check([bound], [of_text(measure, value, low, high, n)], NAMED)
    assert f"{measure} on wiki is {value:.4g}" in outcome.reason
    return outcome.status


def test_bounds_are_parsed() -> None:
    bounds = parse_bounds(["kl=0.02", "self:agreement=-0.03", "arc:accuracy=-0.1", "bad:refusals=0.2"], NAMED)
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
    both = parse_bounds(["refusals=0.2", "refusals=-0.2"], NAMED)
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
        parse_bounds(given, NAMED)


def test_a_measure_that_is_not_taken_cannot_be_bounded() -> None:
    with pytest.raises(ConfigError, match="no measure that is taken"):
        parse_bounds(["refusals=-0.1"], {"wiki": Texts})


def test_a_bound_holds_for_everything_and_one_with_a_name_goes_before() -> None:
    findings = [of_text("kl", 0.05, 0.04, 0.06), of_text("kl", 0.05, 0.04, 0.06, on="self")]
    outcomes = check(parse_bounds(["kl=0.02", "self:kl=0.5"], NAMED), findings, NAMED)
    assert [(one.subject, one.limit, one.status) for one in outcomes] == [("wiki", 0.02, BROKEN), ("self", 0.5, HELD)]


def share(
    section: str, subject: str, measure: str, ends: tuple[float, float, float], part: str, n: int = 50
) -> Finding:
    value, low, high = ends
    interval = Interval(value=value, low=low, high=high, documents=n)
    return found(section, subject, measure, interval, "item", part=part, headline=measure != "agreement")


def test_bounds_on_tasks_and_refusals() -> None:
    findings = [
        share("tasks", "arc", "accuracy", (-0.2, -0.3, -0.1), "plain"),
        share("tasks", "arc", "agreement", (0.6, 0.5, 0.7), "plain"),
        share("tasks", "arc", "accuracy", (-0.9, -1.0, -0.8), "chat", 5),
        share("tasks", "arc", "agreement", (0.1, 0.0, 0.2), "chat", 5),
        # Another scoring is no headline, and no bound is on it.
        found("tasks", "arc", "accuracy", Interval(value=-1.0, low=-1.0, high=-0.9, documents=50), "item", part="raw"),
        share("refusals", "bad", "refusals", (-0.3, -0.4, -0.2), "rules"),
        share("refusals", "bad", "refusals", (0.3, 0.2, 0.4), "likelihood"),
        share("refusals", "bad", "broken", (0.3, 0.2, 0.4), ""),
        share("other", "bad", "refusals", (0.3, 0.2, 0.4), "of another section"),
    ]

    def statuses(bound: str) -> dict[str, OutcomeStatus]:
        return {one.part: one.status for one in check(parse_bounds([bound], NAMED), findings, NAMED)}

    assert statuses("accuracy=-0.05") == {"plain": BROKEN, "chat": NO_EVIDENCE}
    assert statuses("accuracy=-0.15") == {"plain": NOT_SURELY, "chat": NO_EVIDENCE}
    assert statuses("accuracy=-0.2") == {"plain": HELD, "chat": NO_EVIDENCE}
    assert statuses("agreement=-0.25") == {"plain": BROKEN, "chat": NO_EVIDENCE}
    assert statuses("refusals=-0.1") == {"rules": BROKEN, "likelihood": HELD}
    assert statuses("refusals=0.1") == {"rules": HELD, "likelihood": BROKEN}
    assert statuses("broken=0.1") == {"": BROKEN}
    outcome = check(parse_bounds(["arc:accuracy=-0.05"], NAMED), findings, NAMED)[0]
    assert outcome.reason == (
        "accuracy change on arc (plain) is -0.2 [-0.3, -0.1], bound accuracy change ≥ -0.05: "
        "the interval over 50 items excludes the bound"
    )


def test_a_bound_on_what_was_not_measured_is_not_dropped() -> None:
    bounds = parse_bounds(["bad:refusals=-0.1", "kl=1"], NAMED)
    kl, refusals = check(bounds, [of_text("kl", 0.05, 0.04, 0.06)], NAMED)
    assert (kl.status, refusals.status, refusals.subject) == (HELD, NO_EVIDENCE, "bad")
    assert "nothing was measured" in refusals.reason


def test_strict_fails_on_errors_and_on_too_little_evidence() -> None:
    records = [
        SectionRecord(name=name, title=name, status=state, reason=f"why {name}")
        for name, state in (
            ("a", Status.MEASURED),
            ("b", Status.NOT_RUN),
            ("c", Status.ERROR),
            ("d", Status.NO_EVIDENCE),
        )
    ]
    few = check(parse_bounds(["kl=0.02"], NAMED), [of_text("kl", 3.0, 2.0, 4.0, 9)], NAMED)
    report = make_report(sections=records, gate=few)
    assert broken(report) == []
    assert broken(report, strict=True) == ["c: error (why c)", "d: not enough evidence (why d)", few[0].reason]
    failed = check(parse_bounds(["kl=0.02"], NAMED), [of_text("kl", 0.05, 0.04, 0.06)], NAMED)
    assert broken(make_report(sections=[], gate=failed)) == [failed[0].reason]


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
    assert status("kl", 0.02, 3.0, 2.0, 4.0, 9) == NO_EVIDENCE
    assert status("kl", 0.02, 0.0, 0.0, 0.0, 9) == NO_EVIDENCE
    (outcome,) = check([Bound(name="wiki", measure="kl", limit=1)], [of_text("kl", 2.0, None, None, 1)], NAMED)
    assert outcome.reason == "kl on wiki is 2, bound kl ≤ 1: not enough evidence: 1 document"
