"""Findings: a verdict for every kind of measure, p from an interval, and one rule for many verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.report.finding import Finding, found, select, together
from keeptune.report.measures import MEASURES, Measure, Verdict, measure_of, register
from keeptune.stats import MIN_DOCUMENTS, Interval

HIGHER, LOWER, NO_CHANGE, NO_EVIDENCE, CANNOT = Verdict


def interval(low: float | None, high: float | None, documents: int = 20) -> Interval:
    value = 0.0 if low is None or high is None else (low + high) / 2
    return Interval(value=value, low=low, high=high, documents=documents)


def judged(measure: str, low: float | None, high: float | None, documents: int = 20, floor: float = 0.001) -> Finding:
    return found("drift", "wiki", measure, interval(low, high, documents), "document", noise_floor=floor)


@pytest.mark.parametrize(
    ("measure", "low", "high", "verdict", "words", "worse"),
    [
        ("kl", 0.0, 0.0, NO_CHANGE, "not distinguishable from zero", False),
        ("kl", 0.0005, 0.4, NO_CHANGE, "not distinguishable from zero", False),
        ("kl", 0.001, 0.4, NO_CHANGE, "not distinguishable from zero", False),
        ("kl", 0.0011, 0.002, HIGHER, "drifted", True),
        ("ce_change", -0.2, 0.1, NO_CHANGE, "not distinguishable from zero", False),
        ("ce_change", 0.0002, 0.0008, NO_CHANGE, "not distinguishable from zero", False),
        ("ce_change", -0.0008, -0.0002, NO_CHANGE, "not distinguishable from zero", False),
        ("ce_change", 0.002, 0.1, HIGHER, "predicted worse", True),
        ("ce_change", -0.1, -0.002, LOWER, "predicted better", False),
        ("l_f_rise", -0.1, -0.002, LOWER, "nearer to the base", False),
        ("agreement", 1.0, 1.0, NO_CHANGE, "not distinguishable from zero", False),
        ("agreement", 0.97, 0.9995, NO_CHANGE, "not distinguishable from zero", False),
        ("agreement", 0.97, 0.99, LOWER, "drifted", True),
        ("accuracy", -0.2, -0.1, LOWER, "fell", True),
        ("refusals", -0.2, -0.1, LOWER, "refuses less", True),
        ("recovered_share", 0.6, 0.9, HIGHER, "mostly spurious", True),
        ("recovered_share", 0.1, 0.4, LOWER, "mostly lost", True),
        ("recovered_share", 0.4, 0.6, NO_CHANGE, "undecided", False),
    ],
)
def test_a_value_differs_where_its_whole_interval_lies_beyond_the_floor(
    measure: str, low: float, high: float, verdict: Verdict, words: str, worse: bool
) -> None:
    finding = judged(measure, low, high)
    assert (finding.verdict, finding.words, finding.worse) == (verdict, words, worse)


@pytest.mark.parametrize("measure", ["kl", "agreement", "accuracy"])
def test_too_little_is_no_evidence(measure: str) -> None:
    assert judged(measure, 0.5, 0.6, MIN_DOCUMENTS - 1).verdict is NO_EVIDENCE
    assert judged(measure, 0.5, 0.6, MIN_DOCUMENTS).verdict is not NO_EVIDENCE
    assert judged(measure, None, None, 1).verdict is NO_EVIDENCE
    for verdict in (NO_EVIDENCE, CANNOT):
        known = found("s", "x", measure, interval(0.5, 0.6), "item", beforehand=verdict, p=0.0)
        assert (known.verdict, known.p) == (verdict, None)


def test_what_has_no_null_is_not_judged() -> None:
    finding = judged("entropy", 0.5, 0.6)
    assert (finding.verdict, finding.p, finding.words) == (None, None, "")
    assert found("s", "x", "agreement", interval(0.1, 0.2), "item", judged=False).verdict is None


def test_verdicts_of_a_report_hold_together() -> None:
    one = found("tasks", "a", "accuracy", interval(-0.2, -0.1), "item", p=0.02)
    sure = found("tasks", "b", "accuracy", interval(-0.2, -0.1), "item", p=0.001)
    few = found("tasks", "c", "accuracy", interval(-0.2, -0.1, 5), "item", p=0.001)
    assert [finding.verdict for finding in together([one])] == [LOWER]
    four = together([one, sure, few, replace_p(one), replace_p(one)])
    assert [finding.verdict for finding in four] == [NO_CHANGE, LOWER, NO_EVIDENCE, NO_CHANGE, NO_CHANGE]
    assert four[1].p_together == pytest.approx(0.004)
    assert four[2].p_together is None


def replace_p(finding: Finding) -> Finding:
    return found("tasks", "d", finding.measure, finding.interval, "item", p=0.5)


def test_null_reports_give_few_alarms_together() -> None:
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        errors = generator.normal(size=20)
        findings = [
            found("s", str(place), "ce_change", interval(value - 1.96, value + 1.96), "document")
            for place, value in enumerate(errors)
        ]
        alarms += any(finding.changed for finding in together(findings))
    assert alarms / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_change_and_label() -> None:
    finding = judged("agreement", 0.96, 0.98)
    assert finding.change == pytest.approx((-0.03, -0.04, -0.02))
    assert found("t", "arc", "accuracy", interval(0, 1), "item", part="chat").label == "arc (chat)"
    assert select([finding], "drift", measure="agreement") == [finding]
    assert select([finding], "tasks") == []


def test_every_measure_has_words_and_a_name_of_its_own() -> None:
    for name, measure in MEASURES.items():
        assert name == measure.name
        assert measure.label
        assert measure.says.endswith(".")
    assert measure_of("of a later version").label == "of a later version"
    with pytest.raises(ValueError, match="kl stands in the table already"):
        register(Measure(name="kl", label="other", unit="", says="."))
    register(measure_of("kl"))
