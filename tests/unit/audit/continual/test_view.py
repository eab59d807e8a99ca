"""The page of a continual run: what it says, hostile names, and that a real browser draws it."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np
import pytest

from keeptune.audit.continual.matrix import Column, score_findings, summary_findings
from keeptune.audit.continual.section import UNITS, Continual
from keeptune.audit.continual.view import ColumnAbout, ContinualDetails, Kind
from keeptune.audit.page import audit_page
from keeptune.report.codec import to_json
from keeptune.report.document import Model, Report, SectionRecord, Status
from keeptune.report.finding import Finding, found
from keeptune.stats import Interval
from tests.helpers import audit_report
from tests.helpers.browser import Browser
from tests.helpers.pages import HOSTILE, LINK, Page, words

MATRIX = np.array([[-3.0, -2.9, -3.1], [-1.2, -2.8, -3.1], [-1.7, -1.1, -3.6]])
ACCURACY = np.array([[0.4], [0.44], [0.4]])


def columns(names: list[str], stages: list[int | None], scores_LT: Any) -> list[Column]:
    generator = np.random.default_rng(0)
    noise_LD = generator.normal(0, 0.02, (len(scores_LT), 20))
    noise_LD -= noise_LD.mean(axis=1, keepdims=True)
    return [
        Column(
            name=name,
            stage=stage,
            sums_LD=np.repeat(scores_LT[:, [place]], 20, axis=1) + noise_LD,
            weights_D=np.ones(20),
            floor=0.0,
        )
        for place, (name, stage) in enumerate(zip(names, stages, strict=True))
    ]


def report_of(parts: dict[Kind, list[Column]], source: str, stages: int = 2) -> Report:
    findings: list[Finding] = []
    for kind, of_kind in parts.items():
        findings += [*score_findings(of_kind, UNITS[kind]), *summary_findings(of_kind, kind, UNITS[kind])]
    drift = Interval(value=0.4321, low=0.4, high=0.5, documents=20)
    for column in parts["texts"]:
        for stage in range(1, stages + 1):
            findings.append(found("continual", column.name, "kl", drift, "document", part=f"stage {stage}"))
    models = [Model(source=name, fingerprint=f"f{at}") for at, name in enumerate((source, "two")[:stages], start=1)]
    about = [
        ColumnAbout(name=column.name, kind=kind, stage=column.stage, source=source, documents=len(column.weights_D))
        for kind, of_kind in parts.items()
        for column in of_kind
    ]
    record = SectionRecord(
        name="continual",
        title=Continual.title,
        status=Status.MEASURED,
        methods=[f"20 documents of {source}."],
        details=to_json(ContinualDetails(checkpoints=models, columns=about)),
    )
    base = Model(source=f"{source}/base", fingerprint="f0")
    command = f"keeptune audit {source}"
    return audit_report.make_report(
        findings, kind="stages", base=base, tuned=models, sections=[record], command=command
    )


def make_report(text: str = "verilog", source: str = "runs/one", quiz: str = "quiz") -> Report:
    texts = columns([text, "pydoc", "wiki"], [1, 2, None], MATRIX)
    return report_of({"texts": texts, "tasks": columns([quiz], [None], ACCURACY)}, source)


def page_of(report: Report) -> str:
    return audit_page(report, (Continual,))


def test_the_page_says_what_was_measured() -> None:
    page = Page(page_of(make_report()))
    body = words(page.all("body")[0])
    assert "Backward transfer: below zero on texts (−0.500)" in body
    assert "Fall of other knowledge: above zero on wiki (+0.500)" in body
    for fact in ("it was tuned in 2 stages", "20 documents of runs/one", "keeptune audit runs/one", "f1", "BWT"):
        assert fact in body


def test_the_heat_map_marks_stages_and_tints_sure_changes_alone() -> None:
    html = page_of(make_report())
    heat = re.findall(r"<td[^>]*>", html.partition('<table class="heat">')[2])[:9]
    trained = [place for place, cell in enumerate(heat) if 'class="trained"' in cell]
    assert trained == [3, 7]
    shares = [cell.rpartition("--share: ")[2].removesuffix('">') for cell in heat]
    assert shares[:3] == ["0%"] * 3
    # 1.8 of 1.8 and 0.5 of 1.8, from 10 % to 60 %; wiki did not change in stage 1.
    assert (shares[3], shares[5], shares[8]) == ("60%", "0%", "24%")
    assert "--better" in heat[3]
    assert "--worse" in heat[8]
    assert "−1.200" in html
    assert "+1.800" in html


def test_the_tables_copy_every_number() -> None:
    report = make_report()
    page = Page(page_of(report))
    names = [str(attributes["id"]) for attributes in page.attributes("textarea")]
    tables = {
        name.removesuffix("-csv"): list(csv.DictReader(io.StringIO(text.lstrip("\n"))))
        for name, text in zip(names, page.all("textarea"), strict=True)
    }
    followed, scores, of_tasks = tables["continual"], tables["texts-table"], tables["tasks-table"]
    assert [row["measure"] for row in followed] == ["acc", "bwt", "fwt", "stage_forgetting", "fall", "fall"]
    assert float(followed[1]["value"]) == pytest.approx(-0.5)
    (bwt,) = report.select(measure="bwt")
    assert float(followed[1]["value_low"]) == bwt.low
    assert [row["text"] for row in scores] == ["verilog"] * 3 + ["pydoc"] * 3 + ["wiki"] * 3
    assert [float(row["score"]) for row in scores] == pytest.approx(MATRIX.T.ravel().tolist())
    assert scores[1]["kl"] == "0.4321"
    assert [float(row["score"]) for row in of_tasks] == pytest.approx(ACCURACY.ravel().tolist())


def test_the_charts_hold_every_change() -> None:
    drawn = dict(re.findall(r'<figure id="([^"]+)">.*?(<svg .*?</svg>)', page_of(make_report()), re.DOTALL))
    assert list(drawn) == ["texts-score-change", "texts-kl", "tasks-score-change"]
    said = re.findall(r"<title>(.*?) \[", drawn["texts-score-change"])
    expected = [
        f"{name}, {stage}: {'−' if change < 0 else ''}{abs(change):.4f}"
        for name, of_column in zip(("verilog", "pydoc", "wiki"), (MATRIX - MATRIX[0]).T, strict=True)
        for stage, change in zip(("base", "stage 1", "stage 2"), of_column, strict=True)
    ]
    assert said == expected


def test_one_stage_and_a_lone_document_have_a_page() -> None:
    lone = [Column(name="only", stage=1, sums_LD=np.ones((2, 1)), weights_D=np.ones(1), floor=0.0)]
    page = Page(page_of(report_of({"texts": lone}, "one", stages=1)))
    assert "Nothing was judged." in words(page.all("header")[0])
    assert "it was tuned in 1 stage," in words(page.all("header")[0])


@pytest.mark.parametrize("phone", [False, True])
def test_a_browser_draws_it_and_runs_no_hostile_name(browser: Browser, phone: bool) -> None:
    hostile = make_report(HOSTILE, LINK, HOSTILE[:40])
    browser.open(page_of(hostile), width=375 if phone else 1280, phone=phone, dark=True)
    assert browser.complaints() == browser.requests() == []
    assert "hacked" not in browser.js("document.title")
    shown = f"[...document.querySelectorAll('.chart.{'phone' if phone else 'desk'} svg')]"
    assert browser.js(f"{shown}.filter(svg => svg.getBoundingClientRect().width > 200).length") == 3
    if phone:
        assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
