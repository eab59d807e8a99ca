"""The report page: what stands in it, that hostile text stays text, and that a real browser draws it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from typing import Any

import pytest

from keeptune.demo.page import demo_page
from keeptune.report.measures import measure_of
from tests.helpers.browser import Browser
from tests.helpers.pages import HOSTILE, LINK, Page, words

MEASURES = ("kl", "l_f_rise", "ce_change", "agreement")
CHARTS = ("task-loss", "drift", "trade-off")


def interval(value: float, width: float | None = 0.01) -> dict[str, Any]:
    low, high = (None, None) if width is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high, "documents": 64}


def reading(*values: float, width: float | None = 0.01) -> dict[str, Any]:
    measures = {name: interval(value, width) for name, value in zip(MEASURES, values, strict=True)}
    return {"documents": 64, "tokens": 16_321, "measures": measures}


def rows(steps: int, loss: float, drift: float) -> list[dict[str, Any]]:
    points = [(step, step / steps) for step in range(0, steps + 1, 10)]
    return [
        {"step": step, "L_ft": 2.41 - (2.41 - loss) * part, "KL": drift * part, "seconds": 4.0 * step}
        for step, part in points
    ]


@pytest.fixture
def content() -> dict[str, Any]:
    return {
        "sentence": "With replay it drifted a quarter as far.",
        "summary": {
            "model": "smollm2",
            "data": "verilog",
            "drift_ratio_matched_steps": {"self": interval(0.27, 0.03), "pydoc": interval(0.33, 0.04)},
            "drift_ratio_equal_loss": {"self": interval(0.42, 0.05), "pydoc": interval(0.0457, 0.001)},
            "task_loss": {"base": 2.41, "plain": 1.28, "replay": 1.27, "replay_matched": 1.33},
            "equal_loss_reached": True,
            "steps": {"plain": 60, "replay": 90},
            "minutes": 12.34,
            "versions": {"keeptune": "0.1.0", "torch": "2.9.0"},
            "command": "keeptune demo --out x",
            "seed": 42,
            "machine": {"architecture": "x86_64", "threads": 2},
        },
        "trajectories": {"plain": rows(60, 1.28, 0.9), "replay": rows(90, 1.27, 0.3)},
        "readings": {
            "self": {"plain": reading(0.9134, 0.7012, 0.4511, 0.7312), "replay": reading(0.28, 0.2, 0.1, 0.88)},
            "pydoc": {"plain": reading(0.71, 0.5, 0.35, 0.77), "replay": reading(0.21, 0.16, -0.0211, 0.89)},
        },
        "continuations": [{"prompt": "def f(n):\n\treturn", "base": "\n\n  n", "plain": "  wire;", "replay": " n"}],
        "method": ["The base was tuned on 400 files.", "Replay adds its own text."],
    }


@pytest.fixture
def hostile(content: dict[str, Any]) -> dict[str, Any]:
    """The same with hostile text wherever text of a user, a model or a machine stands."""
    summary = content["summary"]
    content["sentence"] = HOSTILE + LINK
    summary |= {"model": HOSTILE, "data": LINK, "command": HOSTILE, "seed": LINK}
    summary["versions"][HOSTILE] = summary["machine"][LINK] = HOSTILE
    for texts in (content["readings"], summary["drift_ratio_matched_steps"], summary["drift_ratio_equal_loss"]):
        texts[HOSTILE] = texts.pop("pydoc")
    content["readings"]["self"][LINK] = content["readings"]["self"].pop("replay")
    content["continuations"].append({"prompt": HOSTILE, "base": LINK, "plain": HOSTILE, "replay": HOSTILE})
    content["method"].append(HOSTILE + LINK)
    return content


def test_page_says_what_was_measured(content: dict[str, Any]) -> None:
    page = Page(demo_page(content))
    body = words(page.all("body")[0])
    assert page.all("title")[0] == page.all("h1")[0] == "What did the model forget?"
    for ratio in ("0.27× [0.24, 0.30]", "0.33× [0.29, 0.37]", "0.42× [0.37, 0.47]", "0.046× [0.045, 0.047]"):
        assert ratio in body
    for fact in (
        content["sentence"],
        *content["method"],
        *(measure_of(name).definition for name in MEASURES),
        "keeptune demo --out x",
        "12.3 minutes",
    ):
        assert fact in body
    assert "95\u202f% studentised bootstrap" in page.all("body")[0]
    assert "one training run a method" in body


@pytest.mark.parametrize(("replay_loss", "said"), [(1.27, False), (1.28, False), (1.291, True)])
def test_page_says_when_replay_fell_short_of_equal_loss(
    content: dict[str, Any], replay_loss: float, said: bool
) -> None:
    content["summary"]["task_loss"]["replay"] = replay_loss
    content["summary"]["equal_loss_reached"] = not said
    header = words(Page(demo_page(content)).all("header")[0])
    assert f"1.280 after 60 steps without replay, {replay_loss:.3f} after 90 with" in header
    assert ("not quite reached" in header) is said


def test_every_number_of_the_readings_stands_in_the_table(content: dict[str, Any]) -> None:
    page = Page(demo_page(content))
    table = words(page.all("table")[1])
    for runs in content["readings"].values():
        for of_run in runs.values():
            for measure in of_run["measures"].values():
                cell = "{value:.4f} [{low:.4f}, {high:.4f}]".format(**measure).replace("-", "−")
                assert cell in table
    assert table.count(" 64") == table.count("16,321") == 4
    targets = {attributes.get("id") for attributes in page.attributes("dt")}
    links = [str(attributes["href"]) for attributes in page.attributes("a")][1:]
    assert len(links) == len(MEASURES)
    assert {link.removeprefix("#") for link in links} <= targets


def test_csv_holds_the_table_with_all_digits(content: dict[str, Any]) -> None:
    content["readings"]["self"]["plain"] = reading(0.123456789, 0.5, 0.5, 0.5, width=None)
    text = Page(demo_page(content)).all("textarea")[1].removeprefix("\n")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [(row["text"], row["run"]) for row in table] == [
        ("self", "plain"),
        ("self", "replay"),
        ("pydoc", "plain"),
        ("pydoc", "replay"),
    ]
    assert (table[0]["kl"], table[0]["kl_low"], table[0]["kl_high"]) == ("0.123456789", "", "")
    assert (table[3]["ce_change"], table[3]["documents"], table[3]["tokens"]) == ("-0.0211", "64", "16321")


def test_a_missing_interval_has_no_brackets(content: dict[str, Any]) -> None:
    content["readings"] = {"self": {"plain": reading(0.9134, 0.7012, 0.4511, 0.7312, width=None)}}
    for ratios in ("drift_ratio_matched_steps", "drift_ratio_equal_loss"):
        content["summary"][ratios] = {"self": interval(0.27, None)}
    page = Page(demo_page(content))
    assert "0.9134" in page.all("table")[1]
    assert "[" not in page.all("table")[1]
    assert "[" not in page.all("header")[0]
    assert "None" not in page.all("main")[0]


def test_charts_carry_the_readings_and_skip_missing_ones(content: dict[str, Any]) -> None:
    content["trajectories"]["plain"][0]["L_ft"] = None
    html = demo_page(content)
    drawn = dict(re.findall(r'<figure id="([^"]+)">.*?(<svg .*?</svg>)', html, re.DOTALL))
    assert tuple(drawn) == CHARTS
    said = {name: re.findall(r"<title>(.*?)</title>", svg) for name, svg in drawn.items()}
    assert said["task-loss"][0] == "plain, step 10: 2.222"
    assert len([title for title in said["task-loss"] if title.startswith("plain")]) == 6
    assert said["drift"][6] == "plain, step 60: 0.900"
    assert "replay, loss 1.270, drift 0.300" in said["trade-off"]
    page = Page(html)
    said = dict(zip([a.get("id") for a in page.attributes("p")], page.all("p"), strict=True))
    assert "0.900 at step 60" in said["drift-about"]
    assert ">matched steps</text>" in drawn["drift"]
    assert ">equal task loss</text>" in drawn["trade-off"]


def test_hostile_text_stays_text(content: dict[str, Any], hostile: dict[str, Any]) -> None:
    html = demo_page(hostile)
    page = Page(html)
    assert page.all("pre")[-1] == page.all("pre")[-4] == "\n" + HOSTILE
    assert HOSTILE + LINK in page.all("p")[0]
    assert len(page.attributes("script")) == 1
    assert not page.attributes("img")
    assert not [element for element in page.elements if any(name.startswith("on") for name in element[1])]
    assert "49" not in page.all("pre")[-1]


def test_page_needs_nothing_from_elsewhere(content: dict[str, Any]) -> None:
    html = demo_page(content)
    page = Page(html)
    assert len(html.encode()) < 600_000
    addresses = [
        value for _, attributes in page.elements for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\(|@import", page.all("style")[0])
    policy = next(meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for script in page.all("script"):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize(("dark", "ink"), [(False, "rgb(27, 31, 36)"), (True, "rgb(231, 233, 236)")])
def test_chromium_draws_three_charts_and_runs_no_hostile_script(
    browser: Browser, hostile: dict[str, Any], dark: bool, ink: str
) -> None:
    browser.open(demo_page(hostile), dark=dark)
    assert browser.js("document.title") == "What did the model forget?"
    fills = "[...document.querySelectorAll('.desk')].map(c => getComputedStyle(c.querySelector('text')).fill)"
    assert browser.js(fills) == [ink] * 3
    assert browser.complaints() == browser.requests() == []


def test_a_phone_does_not_scroll_sideways(browser: Browser, hostile: dict[str, Any]) -> None:
    browser.open(demo_page(hostile), width=375, height=700, phone=True)
    assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
    assert browser.complaints() == []
