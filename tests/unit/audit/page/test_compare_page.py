"""The page of a comparison: what it says, where numbers stand, hostile names, and that a real browser draws it."""

from __future__ import annotations

import csv
import io
import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from keeptune.audit.page.compare import compare_page, number_places
from keeptune.audit.verdict import RULES, better
from tests.helpers.browser import Browser
from tests.helpers.pages import HOSTILE, LINK, Page, words


def place(value: float, width: float | None = 0.05) -> dict[str, Any]:
    low, high = (None, None) if width is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high, "documents": 64, "floor": 0.001}


def make_comparison(names: tuple[str, ...] = ("plain", "replay", "poor"), *, task: bool = False) -> dict[str, Any]:
    sign = 1 if task else -1
    spots = [(0.9, 0.30, True), (0.85, 0.04, True), (0.5, 0.18, False)]
    points = [
        {
            "name": name,
            "report": f"{name}/report.json",
            "tuned": {"source": f"runs/{name}", "fingerprint": "f"},
            "learned": place(sign * learned),
            "forgot": place(forgot),
            "front": front,
        }
        for name, (learned, forgot, front) in zip(names, spots, strict=True)
    ]
    pairs = [
        {
            "first": one["name"],
            "second": two["name"],
            "learned": better(one["learned"], two["learned"], higher=task),
            "forgot": better(one["forgot"], two["forgot"], higher=False),
        }
        for one, two in combinations(points, 2)
    ]
    learned = {"title": "CE change on verilog, nats per token", "higher_is_better": task}
    forgot = {"title": f"KL on {names[0]}", "higher_is_better": False}
    return {
        "base": {"source": names[0], "fingerprint": "b"},
        "axes": {"learned": learned, "forgot": forgot},
        "points": points,
        "pairs": pairs,
        "rules": RULES,
        "command": f"keeptune compare {names[1]}",
        "versions": {"torch": "2"},
    }


def chart(page: Page) -> dict[str, Any]:
    drawn = next(text for text in page.all("script") if text.startswith('{"data"'))
    return {trace["name"]: trace for trace in json.loads(drawn)["data"]}


def test_the_page_says_what_was_compared() -> None:
    page = Page(compare_page(make_comparison()))
    body = words(page.all("body")[0])
    assert (
        "plain and replay are on the Pareto front. Surely different are 2 of 3 pairs in what they learned, and 3"
        in body
    )
    for fact in (*RULES.values(), "CE change on verilog, nats per token; lower is better", "runs/poor", "0.1800"):
        assert fact in body
    rows = list(csv.DictReader(io.StringIO(page.all("textarea")[0].lstrip("\n"))))
    assert [(row["model"], row["front"]) for row in rows] == [("plain", "yes"), ("replay", "yes"), ("poor", "no")]
    assert [float(row["learned_low"]) for row in rows] == pytest.approx([-0.95, -0.9, -0.55])


@pytest.mark.parametrize("task", [False, True])
def test_no_model_lies_below_the_staircase(task: bool) -> None:
    comparison = make_comparison(task=task)
    line = chart(Page(compare_page(comparison)))["Pareto front"]
    assert line["line"]["shape"] == ("vh" if task else "hv")
    steps = list(zip(line["x"], line["y"], strict=True))
    for point in comparison["points"]:
        x, y = point["learned"]["value"], point["forgot"]["value"]
        # What the staircase says can be reached at this x: the least forgotten by those that learned as much.
        reached = [height for across, height in steps if (across >= x if task else across <= x)]
        assert y >= min(reached)
        assert (y == min(reached)) is point["front"]


def test_a_model_without_intervals_has_no_bars() -> None:
    comparison = make_comparison()
    comparison["points"][1]["learned"] = place(-0.8, None)
    drawn = chart(Page(compare_page(comparison)))
    assert drawn["2 replay"]["error_x"] == {"visible": False}
    assert drawn["2 replay"]["error_y"]["array"] == pytest.approx([0.05])
    assert drawn["1 plain"]["error_x"]["arrayminus"] == pytest.approx([0.05])


def test_numbers_avoid_each_other() -> None:
    crowd = [{"learned": place(-0.8 + 0.001 * step), "forgot": place(0.2 + 0.0005 * step)} for step in range(4)]
    places = number_places([*crowd, {"learned": place(-0.1), "forgot": place(0.9)}])
    assert len(set(places[:4])) == 4
    assert places[4] == "top right"
    assert number_places([{"learned": place(0.0), "forgot": place(0.0)}]) == ["top right"]


def test_many_models_are_all_named() -> None:
    comparison = make_comparison()
    generator = np.random.default_rng(0)
    first = comparison["points"][0]
    comparison["points"] = [
        {**first, "name": f"m{index}", "learned": place(-float(x)), "forgot": place(float(y))}
        for index, (x, y) in enumerate(generator.random((20, 2)))
    ]
    drawn = chart(Page(compare_page(comparison)))
    assert {f"{index + 1} m{index}" for index in range(20)} <= set(drawn)


@pytest.mark.parametrize("phone", [False, True])
def test_a_browser_draws_it_and_runs_no_hostile_name(browser: Browser, phone: bool) -> None:
    browser.open(
        compare_page(make_comparison((HOSTILE, LINK, "x" * 300))), width=375 if phone else 1280, phone=phone, dark=True
    )
    assert browser.complaints() == browser.requests() == []
    assert "hacked" not in browser.js("document.title")
    assert browser.js("document.querySelectorAll('svg.main-svg').length") >= 2
    if phone:
        assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
