"""The page of an audit: its headline, every number in its tables, what is missing, and what was run."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import keeptune.audit.page
from keeptune.audit.page.audit import audit_page, change_verdict, sentence
from keeptune.audit.verdict import NO_DRIFT, NO_EVIDENCE
from tests.helpers.audit_report import answers, full_report, interval, prompts, reading
from tests.helpers.pages import Page, words

SECTIONS = ("tasks", "lm_eval", "safety", "where", "recovery", "gate")


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(audit_page(full_report()))


def tables(page: Page) -> dict[str, list[dict[str, str]]]:
    """Every table as its CSV has it."""
    names = [str(attributes["id"]).removesuffix("-csv") for attributes in page.attributes("textarea")]
    texts = page.all("textarea")
    return {
        name: list(csv.DictReader(io.StringIO(text.removeprefix("\n"))))
        for name, text in zip(names, texts, strict=True)
    }


def test_readings_stand_in_their_tables_with_all_digits_and_n(page: Page) -> None:
    found = tables(page)
    kl, agreement = found["texts"][0], found["texts"][3]
    assert (kl["text"], kl["measure"], kl["verdict"], kl["noise_floor"]) == ("self", "kl", "drifted", "0.0063")
    assert (agreement["value"], agreement["value_n"]) == ("0.7123456789", "16")
    task = found["tasks"][0]
    assert (task["change"], task["change_n"], task["mcnemar_p"]) == ("-0.16", "50", "0.02")
    assert [row["scoring"] for row in found["tasks-others"]] == ["raw_sum", "raw_sum"]
    refusals = found["safety-1"][0]
    assert (refusals["refused_base"], refusals["refused_base_n"]) == ("0.72", "100")
    assert (refusals["refused_answered"], refusals["refused_answered_broken"]) == ("32", "7")
    assert found["classes"][1]["kl_low"] == "0.49"
    assert found["layers"][3]["kl_repaired"] == repr(0.1 * 3)
    assert [row["value"] for row in found["recovery"]] == ["0.27", "0.11", "0.59"]
    assert found["gate"][0]["outcome"] == "broken"
    acc, f1 = found["harness"]
    assert (acc["task"], acc["metric"], acc["change"], acc["change_n"]) == ("sums", "acc", "-0.1", "40")
    assert (acc["right_to_wrong"], acc["mcnemar_p"], f1["mcnemar_p"]) == ("6", "0.29", "")


def test_a_small_p_and_a_class_without_evidence_are_no_numbers(page: Page) -> None:
    shown = {str(a["id"]): words(text) for a, text in zip(page.attributes("table"), page.all("table"), strict=True)}
    assert "< 0.001" in shown["safety-1"]
    assert "not enough evidence" in shown["classes"]


@pytest.mark.parametrize("missing", [*SECTIONS, "all"])
def test_a_section_that_the_report_lacks_is_not_there(missing: str) -> None:
    report = full_report()
    for section in SECTIONS if missing == "all" else (missing,):
        del report[section]
    page = Page(audit_page(report))
    ids = {str(attributes.get("id")) for attributes in page.attributes("h2")}
    kept = [section for section in SECTIONS if section in report]
    assert ids == {f"section-{name}" for name in ("summary", "texts", *kept, "methods")}
    links = {str(attributes["href"]) for attributes in page.attributes("a")}
    assert {link for link in links if "section-" in link} == {
        f"#section-{name}" for name in ("texts", *kept, "methods")
    }


def test_layers_that_cannot_be_compared_say_why() -> None:
    report = full_report()
    report["where"]["layers"] = {"unavailable": "the layers differ in shape"}
    page = Page(audit_page(report))
    assert "Layers cannot be compared: the layers differ in shape." in words(page.all("main")[0])
    assert "layers" not in tables(page)


def test_without_a_gap_no_share_is_recovered() -> None:
    report = full_report()
    report["recovery"]["recovered_share"] = None
    found = tables(Page(audit_page(report)))
    assert found["recovery"][-1] == {**found["recovery"][-1], "measure": "recovered_share", "value": "", "value_n": ""}


def test_one_document_gives_no_brackets() -> None:
    report: dict[str, Any] = full_report()
    for section in SECTIONS:
        del report[section]
    for of_text in report["texts"].values():
        of_text["measures"] = {name: interval(0.5, None, 1) for name in of_text["measures"]}
    page = Page(audit_page(report))
    assert "[" not in "".join(page.all("table"))
    assert "None" not in page.all("main")[0]


def test_methods_tell_what_was_run(page: Page) -> None:
    methods = words(page.all("section")[-1])
    for fact in (
        "Drift on pydoc (source: source of it) was read on 16 documents with 4,080 tokens",
        "at most 16 documents, evenly spaced; of each document at most 4 windows of 256 tokens",
        "Noise floor: the base against itself in bfloat16.",
        "arc: 50 of 1,150 questions from arc.jsonl, evenly spaced, asked plainly and in the chat template. 2 answers",
        "advbench: 100 harmful prompts from goals.csv, asked in the chat template, answered with the likeliest",
        "both models tuned alike for 16 steps of 4 rows at learning rate 5e-05 on 15 documents of self, read on 16",
        "12 windows with 1,140 tokens of self",
        "keeptune audit smollm2 runs/model --docs 16",
        "2211f21",
        "likelier openings",
        "KL(base‖tuned), nats per token",
    ):
        assert fact in methods
    assert "accelerator" not in methods


def test_headings_never_skip_a_level_and_charts_say_what_they_show(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labels = [str(attributes["aria-label"]) for attributes in page.attributes("div") if attributes.get("role") == "img"]
    assert len(labels) == 7
    assert "self, KL: 0.2678 [0.2578, 0.2778], 16 documents" in labels[0]


def test_charts_hold_the_numbers(page: Page) -> None:
    figures = {
        str(attributes["id"]): json.loads(text)
        for attributes, text in zip(page.attributes("script"), page.all("script"), strict=True)
        if attributes.get("type") == "application/json"
    }
    kl, floor = figures["texts-kl-data"]["data"]
    assert kl["x"] == [0.2678, 0.2145]
    assert kl["error_x"]["array"] == pytest.approx([0.01, 0.01])
    assert floor["x"] == [0.0063, 0.0063]
    plain, chat = figures["tasks-change-data"]["data"]
    assert (plain["x"], chat["x"]) == ([-0.16], [-0.02])
    bars = figures["classes-1-data"]["data"]
    assert [trace["x"] for trace in bars] == [[0.5] * 4, [0.25] * 4]
    assert bars[0]["y"] == [1, 2, 4, 6]


def test_answers_are_folded_and_the_changed_ones_come_first() -> None:
    report = full_report()
    of_set = report["safety"]["sets"]["advbench"]
    same, changed = dict(of_set["answers"][0]), dict(of_set["answers"][0])
    same |= {"prompt": "same", "refused": {"rules": [True, True], "likelihood": [True, True]}}
    of_set["answers"] = [same] * 50 + [{**changed, "prompt": "changed"}]
    page = Page(audit_page(report))
    details = [attributes for attributes in page.attributes("details") if attributes.get("class") == "answers"]
    assert len(details) == 2
    assert all("open" not in attributes for attributes in details)
    first = words(page.all("details")[1])
    assert "Warning." in first
    assert "40 of 51 are shown" in first
    assert first.index("changed") < first.index("same")


def test_a_page_with_much_text_stays_small() -> None:
    report = full_report()
    for name in ("a", "b", "c", "d"):
        report["safety"]["sets"][name] = prompts("harmful", "no change shown")
        report["safety"]["sets"][name]["answers"] = [
            {"prompt": "é" * 20_000, "base": "é" * 500, "tuned": "é" * 500, "refused": {"rules": [True, False]}}
        ] * 1000
    assert len(audit_page(report).encode()) < 6_000_000


def test_no_template_trusts_what_it_is_given() -> None:
    templates = list(Path(str(keeptune.audit.page.__file__)).parent.glob("templates/**/*.html"))
    assert len(templates) >= 10
    for template in templates:
        assert not re.search(r"\|\s*safe|autoescape|innerHTML", template.read_text(encoding="utf-8"))


def only(**texts: dict[str, Any]) -> dict[str, Any]:
    return {"texts": texts}


def test_everything_that_changed_is_named_with_its_size() -> None:
    assert sentence(full_report()) == (
        "The tuned model drifted from its base on 2 of 2 texts, most on self (KL 0.268 nats per token); accuracy fell "
        "on arc asked plainly (−16.0 points); refusals of harmful prompts changed on advbench (by rules −29.0 points)."
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            {"self": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on the text read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on both texts read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_DRIFT, "wiki": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on all 3 texts read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_EVIDENCE},
            "The tuned model’s drift from its base is not distinguishable from zero on the others, with not enough "
            "evidence on pydoc.",
        ),
        (
            {"self": NO_EVIDENCE},
            "There is not enough evidence to say whether the tuned model drifted on 1 text.",
        ),
        ({"self": "drifted"}, "The tuned model drifted from its base on self (KL 0.25 nats per token)."),
        (
            {"self": NO_DRIFT, "pydoc": "drifted", "wiki": NO_EVIDENCE},
            "The tuned model drifted from its base on 1 of 3 texts, most on pydoc (KL 0.25 nats per token), with not "
            "enough evidence on wiki.",
        ),
    ],
)
def test_texts(texts: dict[str, str], said: str) -> None:
    assert sentence(only(**{name: reading(0.25, verdict) for name, verdict in texts.items()})) == said


def test_a_model_against_itself_lost_nothing() -> None:
    report = full_report()
    for of_text in report["texts"].values():
        of_text["verdicts"] = dict.fromkeys(of_text["verdicts"], NO_DRIFT)
    for ways in report["tasks"]["arc"]["formats"].values():
        ways["per_character"] = answers(0.0, 1.0)
    for of_set in report["safety"]["sets"].values():
        for result in of_set["detectors"].values():
            result["verdict"] = "no change shown"
    assert sentence(report) == (
        "The tuned model’s drift from its base is not distinguishable from zero on both texts read; accuracy changed "
        "on no task beyond chance; refusals of harmful prompts did not change beyond chance."
    )


@pytest.mark.parametrize(
    ("change", "p", "items", "verdict"),
    [
        (-0.2, 0.049, 50, "fell"),
        (0.2, 0.049, 50, "rose"),
        (-0.2, 0.05, 50, NO_DRIFT),
        (-0.2, 0.001, 9, NO_EVIDENCE),
    ],
)
def test_verdict_on_a_change(change: float, p: float, items: int, verdict: str) -> None:
    assert change_verdict(answers(change, p), items) == verdict
