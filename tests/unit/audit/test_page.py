"""The page of an audit: its headline, every number in its tables, what is missing, and what was run."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import keeptune.report
from keeptune.audit.headline import sentence
from keeptune.audit.page import audit_page
from keeptune.audit.safety.section import SetDetails
from keeptune.audit.where.layers import LayerProfile
from keeptune.report.codec import to_json
from keeptune.report.document import Report, Status
from keeptune.report.finding import Finding, found, together
from keeptune.report.measures import Verdict
from tests.helpers import audit_report
from tests.helpers.audit_report import ALL, answers, full_report, interval, make_report, text_findings
from tests.helpers.pages import Page, words

SECTIONS = ("drift", "tasks", "lm_eval", "abilities", "refusals", "where", "recovery")
SVG = re.compile(r"<svg .*?</svg>", re.DOTALL)


def made(report: Report) -> Page:
    return Page(audit_page(report, ALL))


@pytest.fixture(scope="module")
def html() -> str:
    return audit_page(full_report(), ALL)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def details(report: Report, section: str, content: Any) -> Report:
    """The report with other details of a section."""
    records = [replace(one, details=to_json(content)) if one.name == section else one for one in report.sections]
    return replace(report, sections=records)


def tables(page: Page) -> dict[str, list[dict[str, str]]]:
    """Every table as its CSV has it."""
    names = [str(attributes["id"]).removesuffix("-csv") for attributes in page.attributes("textarea")]
    texts = page.all("textarea")
    return {
        name: list(csv.DictReader(io.StringIO(text.removeprefix("\n"))))
        for name, text in zip(names, texts, strict=True)
    }


def test_findings_stand_in_their_tables_with_all_digits_and_n(page: Page) -> None:
    shown = tables(page)
    kl, loss, _, agreement = shown["texts"][:4]
    assert (kl["on"], kl["measure"], kl["verdict"], kl["noise_floor"]) == ("self", "kl", "higher", "0.0063")
    assert (agreement["value"], agreement["value_n"]) == ("0.7123456789", "16")
    assert (loss["value"], loss["base"], loss["tuned"], loss["verdict"]) == ("-0.0411", "2.5", "2.4589", "lower")
    task = shown["tasks"][0]
    assert (task["value"], task["value_n"], task["lost"], task["base_low"]) == ("-0.16", "50", "9", "0.35")
    (accuracy, *_) = full_report().select("tasks", measure="accuracy")
    assert float(task["p"]) == accuracy.p_together
    assert [row["part"] for row in shown["tasks-others"]] == ["plain, raw sum"]
    refusals = shown["refusals-1"][0]
    assert (refusals["measure"], refusals["base"], refusals["base_n"]) == ("refusals", "0.72", "100")
    assert shown["classes"][1]["kl_low"] == "0.49"
    assert shown["layers"][3]["repaired"] == repr(0.1 * 3)
    assert [row["value"] for row in shown["recovery"]] == ["0.27", "0.11", "0.59"]
    assert shown["gate"][0]["outcome"] == "broken"
    acc, f1 = shown["lm_eval"]
    assert (acc["on"], acc["part"], acc["value"], acc["value_n"]) == ("sums", "acc", "-0.1", "40")
    assert (acc["lost"], f1["lost"]) == ("6", "")
    able, unable = shown["abilities"]
    assert (able["on"], able["value"], able["lost"], unable["verdict"]) == (
        "format",
        "-0.2",
        "9",
        "the base cannot do this",
    )
    assert [(row["ability"], row["base"], row["tuned"]) for row in shown["abilities-kinds"]] == [
        ("format", "3", "0"),
        ("sound", "2", "0"),
    ]
    assert shown["abilities-answers"][0]["tuned"] == "the the"
    assert shown["summary"][1]["levels_tuned"] == "2.4589"


def test_a_small_p_and_a_class_without_evidence_are_no_numbers(page: Page) -> None:
    shown = {str(a["id"]): words(text) for a, text in zip(page.attributes("table"), page.all("table"), strict=True)}
    assert "< 0.001" in shown["refusals-1"]
    assert "not enough evidence" in shown["classes"]


@pytest.mark.parametrize("missing", ["drift", "where", "all"])
def test_a_section_that_was_not_measured_says_so(missing: str) -> None:
    report = full_report()
    gone = SECTIONS if missing == "all" else (missing,)
    sections = [
        replace(one, status=Status.ERROR, reason="it broke <b>") if one.name in gone else one for one in report.sections
    ]
    page = made(replace(report, sections=sections))
    ids = {str(attributes.get("id")) for attributes in page.attributes("h2")}
    kept = [section for section in SECTIONS if section not in gone]
    assert ids == {f"section-{name}" for name in ("summary", *kept, "gate", "methods")}
    links = {str(attributes["href"]) for attributes in page.attributes("a") if attributes.get("href")}
    assert {link for link in links if "section-" in link} == {f"#section-{name}" for name in (*kept, "gate", "methods")}
    said = tables(page)["sections"]
    assert {row["section"]: row["status"] for row in said}[gone[0]] == "error"
    assert "it broke <b>" in words(page.all("main")[0])


def test_where_everything_was_measured_that_is_not_tabulated(page: Page) -> None:
    assert "sections" not in tables(page)


def test_a_section_that_this_version_has_not_is_shown_by_its_findings() -> None:
    report = full_report()
    page = Page(audit_page(report, ()))
    assert {"drift", "tasks", "refusals"} <= set(tables(page))


def test_layers_that_cannot_be_compared_say_why() -> None:
    of = replace(audit_report.where_details(), layers=LayerProfile(text="self", unavailable="the layers differ"))
    report = full_report()
    findings = [one for one in report.findings if "layer" not in one.measure]
    page = made(details(replace(report, findings=findings), "where", of))
    assert "Layers cannot be compared: the layers differ." in words(page.all("main")[0])
    assert "layers" not in tables(page)


def test_without_a_gap_no_share_is_recovered() -> None:
    report = make_report(audit_report.recovery_findings(share=False))
    found = tables(made(details(report, "refusals", {})))
    assert [row["measure"] for row in found["recovery"]] == ["gap_before", "gap_after"]


def test_one_document_gives_no_brackets() -> None:
    findings = [found("drift", "self", name, interval(0.5, None, 1), "document", headline=True) for name in ("kl",)]
    page = made(details(make_report(findings), "refusals", {}))
    assert "[" not in "".join(page.all("table"))
    assert "None" not in page.all("main")[0]


def test_methods_tell_what_was_run(page: Page) -> None:
    methods = words(page.all("section")[-1])
    for fact in (
        *(f"How {name} was measured." for name in SECTIONS),
        f"Here {sum(one.p is not None for one in full_report().findings)} findings were judged.",
        "keeptune audit smollm2 runs/model --docs 16",
        "2211f21",
        "KL(base‖tuned), nats per token",
        "CE(tuned) − CE(base) on the text itself",
        "runs/model (fingerprint c5ef3e43c7ed7f2c)",
    ):
        assert fact in methods
    assert "accelerator" not in methods


def test_headings_never_skip_a_level_and_charts_say_what_they_show(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    said = dict(zip([a.get("id") for a in page.attributes("p")], page.all("p"), strict=True))
    drawn = [attributes for attributes in page.attributes("div") if attributes.get("role") == "img"]
    assert len(drawn) == 2 * 10
    assert "self: 0.2678 [0.2578, 0.2778], 16 documents" in said["drift-kl-about"]
    assert all(said[str(attributes["aria-labelledby"])] for attributes in drawn)


def test_marks_say_their_numbers(html: str) -> None:
    drawn = dict(re.findall(r'<figure id="([^"]+)">.*?(<svg .*?</svg>)', html, re.DOTALL))
    assert list(drawn) == [
        "drift-kl", "drift-ce_change", "tasks-accuracy", "abilities-passed", "refusals-refusals", "refusals-broken",
        "classes-1", "classes-2", "layer-moved", "layer-patched",
    ]  # fmt: skip
    said = {name: re.findall(r"<title>(.*?)</title>", svg) for name, svg in drawn.items()}
    kl = {"self": "0.2678 [0.2578, 0.2778]", "pydoc": "0.2145 [0.2045, 0.2245]"}
    assert said["drift-kl"] == [f"{name}: {of}, 16 documents" for name, of in kl.items()]
    assert said["drift-ce_change"][0] == "self: −0.0411 [−0.0511, −0.0311], 16 documents"
    assert said["tasks-accuracy"][1] == "arc, chat: −2.0\u202f% [−7.0\u202f%, +3.0\u202f%], 50 items"
    assert said["classes-1"][0] == "below 0.1: 50.0\u202f% of the KL; 25.0\u202f% of the tokens"
    assert len(said["classes-1"]) == 8
    assert len(said["layer-patched"]) == 8


def test_a_page_has_no_library_and_one_script(html: str, page: Page) -> None:
    assert len(html.encode()) < 250_000
    assert len(page.attributes("script")) == 1
    assert "plotly" not in html.lower()


def test_answers_are_folded_and_the_changed_ones_come_first() -> None:
    same = replace(answers(1)[0], prompt="same", refused={"rules": [True, True], "likelihood": [True, True]})
    changed = replace(answers(1)[0], prompt="changed")
    sets = {name: SetDetails(kind="harmful", answers=[*[same] * 50, changed]) for name in ("advbench", "harmless")}
    page = made(details(full_report(), "refusals", sets))
    folded = [attributes for attributes in page.attributes("details") if attributes.get("class") == "answers"]
    assert len(folded) == 2
    assert all("open" not in attributes for attributes in folded)
    first = words(next(text for text in page.all("details") if "Warning." in text))
    assert "40 of 51 are shown" in first
    assert first.index("changed") < first.index("same")
    assert "rules: answered, likelihood: refused, broken" in first


def test_a_page_with_much_text_stays_small() -> None:
    one = replace(answers(1)[0], prompt="x" * 20_000, base="x" * 500, tuned="x" * 500)
    sets = {name: SetDetails(kind="harmful", answers=[one] * 1000) for name in ("a", "b", "c", "d")}
    assert len(audit_page(details(full_report(), "refusals", sets), ALL).encode()) < 600_000


def test_no_template_trusts_what_it_is_given() -> None:
    templates = list(Path(str(keeptune.report.__file__)).parent.glob("templates/**/*.html"))
    assert len(templates) >= 8
    for template in templates:
        assert not re.search(r"\|\s*safe|autoescape|innerHTML", template.read_text(encoding="utf-8"))


def test_everything_that_changed_is_named_with_its_size() -> None:
    assert sentence(full_report().findings) == (
        "The tuned model drifted from its base on 2 of 2 texts, most on self (KL 0.268 nats per token); loss: "
        "predicted better on self (−0.041), predicted worse on pydoc (+0.045); accuracy: fell on arc (plain) (−16.0 "
        "points); refusals of harmful prompts: refuses less on advbench (rules) (−29.0 points); what brief tuning "
        "brings back: mostly spurious on self (59\u202f%); no change beyond chance: lm-eval, abilities, broken answers "
        "of harmful prompts, refusals of harmless prompts and broken answers of harmless prompts."
    )


HIGHER, NO_DRIFT, NO_EVIDENCE = Verdict.HIGHER, Verdict.NO_CHANGE, Verdict.NO_EVIDENCE


def judged(texts: dict[str, Verdict]) -> list[Finding]:
    return [replace(text_findings(name, 0.25)[0], verdict=verdict) for name, verdict in texts.items()]


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
        ({"self": HIGHER}, "The tuned model drifted from its base on self (KL 0.25 nats per token)."),
        (
            {"self": NO_DRIFT, "pydoc": HIGHER, "wiki": NO_EVIDENCE},
            "The tuned model drifted from its base on 1 of 3 texts, most on pydoc (KL 0.25 nats per token), with not "
            "enough evidence on wiki.",
        ),
        ({}, "Nothing was judged."),
    ],
)
def test_texts(texts: dict[str, Verdict], said: str) -> None:
    assert sentence(judged(texts)) == said


def test_a_model_against_itself_lost_nothing() -> None:
    findings = [replace(one, verdict=NO_DRIFT) if one.verdict else one for one in full_report().findings]
    assert sentence(findings) == (
        "The tuned model’s drift from its base is not distinguishable from zero on both texts read; not "
        "distinguishable from zero: loss; no change beyond chance: accuracy, lm-eval, abilities, refusals of harmful "
        "prompts, broken answers of harmful prompts, refusals of harmless prompts and broken answers of harmless "
        "prompts; undecided: what brief tuning brings back."
    )


def test_what_cannot_be_told_is_said() -> None:
    few = found("tasks", "arc", "accuracy", interval(-0.5, 0.1, 5), "item", headline=True)
    cannot = found("x", "y", "refusals", interval(0.0, 0.1, 50), "item", headline=True, beforehand=Verdict.CANNOT)
    assert sentence([few, cannot]) == "Not enough evidence: accuracy; the base cannot do this: refusals."


def test_one_rule_for_all_verdicts() -> None:
    one = audit_report.task_findings(-0.16, 0.02, "plain")[0]
    assert sentence(together([one])) == "Accuracy: fell on arc (plain) (−16.0 points)."
    many = [replace(one, part=str(number)) for number in range(3)]
    assert sentence(together(many)) == "No change beyond chance: accuracy."
