"""The page of a continual run: what it says, hostile names, and that a real browser draws it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from keeptune.audit.page.stages import stages_page
from keeptune.audit.stages.matrix import DEFINITIONS, Column, cells, summary
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


def make_report(text: str = "verilog", source: str = "runs/one", quiz: str = "quiz") -> dict[str, Any]:
    parts = {
        "texts": columns([text, "pydoc", "wiki"], [1, 2, None], MATRIX),
        "tasks": columns([quiz], [None], ACCURACY),
    }
    drift = {"value": 0.4321, "low": 0.4, "high": 0.5, "documents": 20, "verdict": "drifted"}
    described = [
        {"name": column.name, "kind": kind, "stage": column.stage, "source": source, "units": "u", "documents": 20}
        for kind, of_kind in parts.items()
        for column in of_kind
    ]
    checkpoints = [
        {"stage": 1, "source": source, "fingerprint": "f1"},
        {"stage": 2, "source": "two", "fingerprint": "f2"},
    ]
    return {
        "kind": "stages",
        "base": {"source": source + "/base", "fingerprint": "f0"},
        "checkpoints": checkpoints,
        "columns": [{**column, "targets": 4000} for column in described],
        "R": {kind: cells(of_kind) for kind, of_kind in parts.items()},
        "summary": {kind: summary(of_kind) for kind, of_kind in parts.items()},
        "drift": {"measure": "KL", "texts": [[drift] * 3, [drift] * 3]},
        "intervals": "95% studentised bootstrap",
        "noise_floor": {"how": "the base against itself", "texts": {}},
        "command": f"keeptune audit {source}",
        "seed": 7,
        "machine": {"cpu": source},
        "versions": {"torch": "2"},
    }


def test_the_page_says_what_was_measured() -> None:
    page = Page(stages_page(make_report()))
    body = words(page.all("body")[0])
    assert "later stages took away from what earlier ones taught (BWT −0.500)" in body
    assert "Other knowledge that was surely lost: wiki." in body
    for fact in (*DEFINITIONS.values(), "20 documents of runs/one, 4,000 tokens", "keeptune audit runs/one", "f1"):
        assert fact in body


def test_the_heat_map_marks_stages_and_tints_sure_changes_alone() -> None:
    page = Page(stages_page(make_report()))
    heat = page.attributes("td")[:9]
    trained = [place for place, attributes in enumerate(heat) if attributes.get("class") == "trained"]
    assert trained == [3, 7]
    shares = [str(attributes["style"]).rpartition("--share: ")[2] for attributes in heat]
    assert shares[:3] == ["0%"] * 3
    # 1.8 of 1.8 and 0.5 of 1.8, from 10 % to 60 %; wiki did not change in stage 1.
    assert (shares[3], shares[5], shares[8]) == ("60%", "0%", "24%")
    assert "--better" in str(heat[3]["style"])
    assert "--worse" in str(heat[8]["style"])
    assert [words(cell).strip() for cell in page.all("td")[3:5]] == ["−1.200 +1.800", "−2.800 +0.100"]


def test_the_tables_copy_every_number() -> None:
    report = make_report()
    page = Page(stages_page(report))
    tables = [list(csv.DictReader(io.StringIO(text.lstrip("\n")))) for text in page.all("textarea")]
    followed, scores, _, of_tasks = tables
    assert [row["measure"] for row in followed] == ["acc", "bwt", "fwt", "forgetting verilog", "fall wiki"]
    assert float(followed[1]["value"]) == pytest.approx(-0.5)
    assert float(followed[1]["value_low"]) == report["summary"]["texts"]["bwt"]["low"]
    assert [row["text"] for row in scores] == ["verilog"] * 3 + ["pydoc"] * 3 + ["wiki"] * 3
    assert [float(row["score"]) for row in scores] == pytest.approx(MATRIX.T.ravel().tolist())
    assert [float(row["loss"]) for row in scores] == pytest.approx((-MATRIX).T.ravel().tolist())
    assert scores[1]["kl"] == "0.4321"
    assert [float(row["score"]) for row in of_tasks] == pytest.approx(ACCURACY.ravel().tolist())


def test_the_charts_hold_every_change() -> None:
    page = Page(stages_page(make_report()))
    drawn = [json.loads(text) for text in page.all("script") if text.startswith('{"data"')]
    assert len(drawn) == 3
    lines = [trace for trace in drawn[0]["data"] if trace["mode"] == "lines+markers"]
    assert [trace["name"] for trace in lines] == ["verilog", "pydoc", "wiki"]
    np.testing.assert_allclose([trace["y"] for trace in lines], (MATRIX - MATRIX[0]).T, atol=1e-12)
    assert [trace["marker"]["size"] for trace in lines] == [[7, 14, 7], [7, 7, 14], [7, 7, 7]]


def test_one_stage_and_a_lone_document_have_a_page() -> None:
    report = make_report()
    lone = [Column(name="only", stage=1, sums_LD=np.ones((2, 1)), weights_D=np.ones(1), floor=0.0)]
    report |= {"R": {"texts": cells(lone)}, "summary": {"texts": summary(lone)}, "columns": report["columns"][:1]}
    drift = {"value": 0.1, "low": None, "high": None, "documents": 1, "verdict": "not enough evidence"}
    report |= {"checkpoints": report["checkpoints"][:1], "drift": {"texts": [[drift]]}}
    assert "There was one stage, and nothing yet to forget." in words(Page(stages_page(report)).all("header")[0])


@pytest.mark.parametrize("phone", [False, True])
def test_a_browser_draws_it_and_runs_no_hostile_name(browser: Browser, phone: bool) -> None:
    browser.open(
        stages_page(make_report(HOSTILE, LINK, HOSTILE[:40])), width=375 if phone else 1280, phone=phone, dark=True
    )
    assert browser.complaints() == browser.requests() == []
    assert "hacked" not in browser.js("document.title")
    assert browser.js("document.querySelectorAll('svg.main-svg').length") >= 6
    if phone:
        assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
