"""The page of the laws: its numbers, its words, and that a real browser draws it."""

from __future__ import annotations

import re
from typing import Any

from keeptune.laws.page import render_laws
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


def drawn(html: str, name: str) -> str:
    found = re.search(rf'<figure id="{name}">.*?(<svg .*?</svg>)', html, re.DOTALL)
    assert found
    return found[1]


def test_charts_hold_readings_line_and_law() -> None:
    html = render_laws(drawing())
    line = drawn(html, "line")
    assert re.findall(r"<title>(.*?)</title>", line)[:3] == [
        f"loss {x:.4f}, forgetting {y:.4f}" for x, y in ((2.0, 1.0), (1.8, 1.1), (1.7, 1.15))
    ]
    for shown in ("P = 1,000,000", "P = 4,000,000", "P = 16,000,000", "line"):
        assert f">{shown}</text>" in line
    for name, unit in (("L_ft", "task loss L_ft, nats per token"), ("L_f", "forgetting L_f, nats per token")):
        figure = drawn(html, name)
        assert len(re.findall("<title>", figure)) == 9
        # A curve has the color of its readings.
        curves = re.findall(r"stroke: (#\w+); stroke-width: 2; stroke-linecap", figure)
        assert len(set(curves)) == 3
        assert all(f"fill: {colour}" in figure for colour in curves)
        assert f">{unit}</text>" in figure
        assert ">update steps N</text>" in figure


def test_words() -> None:
    html = render_laws(drawing())
    assert "Forgetting is 2.0000 − 0.5000 × task loss" in html
    assert "explains 97.0\u202f% of the variance" in html
    alone = render_laws(drawing("the joint law needs <three> P"))
    assert "There is no joint law: the joint law needs &lt;three&gt; P." in alone
    assert "there is no joint law to draw" in alone
    assert not re.findall(r"stroke: #\w+; stroke-width: 2; stroke-linecap", drawn(alone, "L_f"))
    assert Page(alone).elements


def test_a_browser_draws_it_on_a_desk_and_on_a_phone(browser: Browser) -> None:
    for phone in (False, True):
        browser.open(render_laws(drawing()), width=375 if phone else 1280, phone=phone)
        assert browser.complaints() == browser.requests() == []
        shown = f".chart.{'phone' if phone else 'desk'} svg"
        wide = (
            f"[...document.querySelectorAll('{shown}')].filter(svg => svg.getBoundingClientRect().width > 200).length"
        )
        assert browser.js(wide) == 3
        assert browser.js("document.documentElement.scrollWidth <= innerWidth")
