"""The page of the laws: its numbers, its words, and that a real browser draws it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from keeptune.audit.page.laws import render_laws
from tests.helpers.browser import Browser
from tests.helpers.pages import Page


def drawing(joint: Any = (0.97, 0.96)) -> dict[str, Any]:
    sizes: list[dict[str, Any]] = [
        {"P": P, "run": [0, 0, 0], "N": [10.0, 20.0, 30.0], "L_ft": [2.0, 1.8, 1.7], "L_f": [1.0, 1.1, 1.15]}
        for P in (1e6, 4e6, 16e6)
    ]
    if not isinstance(joint, str):
        for of in sizes:
            of["fit"] = {"N": [10.0, 30.0], "L_ft": [2.0, 1.7], "L_f": [1.0, 1.15]}
    return {"by_P": sizes, "line": {"c": 0.5, "s": 2.0, "r2": 0.9, "L_ft": [1.7, 2.0]}, "joint": joint}


def figure_of(html: str, name: str) -> Any:
    found = re.search(rf'id="{name}-data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_charts_hold_readings_line_and_law() -> None:
    html = render_laws(drawing())
    traces = figure_of(html, "line")["data"]
    assert [trace["name"] for trace in traces] == ["P = 1,000,000", "P = 4,000,000", "P = 16,000,000", "line"]
    assert (traces[0]["x"], traces[0]["y"]) == ([2.0, 1.8, 1.7], [1.0, 1.1, 1.15])
    assert (traces[3]["x"], traces[3]["y"]) == ([1.7, 2.0], pytest.approx([1.15, 1.0]))
    for name, unit in (("L_ft", "task loss L_ft, nats per token"), ("L_f", "forgetting L_f, nats per token")):
        figure = figure_of(html, name)
        assert [trace["mode"] for trace in figure["data"]] == ["markers", "lines"] * 3
        assert figure["data"][1]["y"] == drawing()["by_P"][0]["fit"][name]
        assert figure["data"][0]["marker"]["color"] == figure["data"][1]["line"]["color"]
        assert figure["layout"]["xaxis"]["title"]["text"] == "update steps N"
        assert figure["layout"]["yaxis"]["title"]["text"] == unit
    looks = {(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in traces[:3]}
    assert len({colour for colour, _ in looks}) == len({symbol for _, symbol in looks}) == 3


def test_words() -> None:
    html = render_laws(drawing())
    assert "Forgetting is 2.0000 − 0.5000 × task loss" in html
    assert "explains 97.0\u202f% of the variance" in html
    alone = render_laws(drawing("the joint law needs <three> P"))
    assert "There is no joint law: the joint law needs &lt;three&gt; P." in alone
    assert len(figure_of(alone, "L_f")["data"]) == 3
    assert Page(alone).elements


def test_a_browser_draws_it_on_a_desk_and_on_a_phone(browser: Browser) -> None:
    for phone in (False, True):
        browser.open(render_laws(drawing()), width=375 if phone else 1280, phone=phone)
        assert browser.complaints() == browser.requests() == []
        assert browser.js("document.querySelectorAll('svg.main-svg').length") >= 3
        assert browser.js("document.documentElement.scrollWidth <= innerWidth")
