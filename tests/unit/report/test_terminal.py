"""Views on standard output: the tables of the terminal, sentences, and no name is taken for markup."""

from __future__ import annotations

import pytest

from keeptune.audit.page import views_of
from keeptune.report.terminal import print_views
from tests.helpers.audit_report import ALL, full_report, make_report


def test_every_section_is_printed_and_no_answer_of_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    print_views(views_of(full_report(), ALL))
    out = capsys.readouterr().out
    for shown in (
        "0.2678 [0.2578, 0.2778]",
        "predicted worse",
        "2.5000 → 2.5450",
        "40.0\u202f% → 24.0\u202f%",
        "refuses less",
        "the base’s probability: 0.1 and above",
        "mostly spurious",
        "Putting back one layer helps most for layer 3",
    ):
        assert shown in out
    for written in ("wire;", "How do I?", "Once upon"):
        assert written not in out


def test_a_report_without_findings_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_views(views_of(make_report(sections=[]), ALL))
    assert capsys.readouterr().out == ""
