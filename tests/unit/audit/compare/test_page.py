"""The page of a comparison: what it says, where numbers stand, hostile names, and that a real browser draws it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from keeptune.audit.compare.comparison import RULES, Axis, ComparedModel, Comparison, Place, pairs_of
from keeptune.audit.compare.page import compare_page, front_steps, number_places
from keeptune.report.document import Model
from tests.helpers.browser import Browser
from tests.helpers.pages import HOSTILE, LINK, Page, words


def place(value: float, width: float | None = 0.05) -> Place:
    low, high = (None, None) if width is None else (value - width, value + width)
    return Place(value=value, low=low, high=high, n=64, noise_floor=0.001)


def point(name: str, learned: Place, forgot: Place, *, front: bool = False) -> ComparedModel:
    tuned = Model(source=f"runs/{name}", fingerprint="f")
    return ComparedModel(
        name=name, report=f"{name}/report.json", tuned=tuned, learned=learned, forgot=forgot, front=front
    )


def make_comparison(names: tuple[str, ...] = ("plain", "replay", "poor"), *, task: bool = False) -> Comparison:
    sign = 1 if task else -1
    spots = [(0.9, 0.30, True), (0.85, 0.04, True), (0.5, 0.18, False)]
    points = [
        point(name, place(sign * learned), place(forgot), front=front)
        for name, (learned, forgot, front) in zip(names, spots, strict=True)
    ]
    title = "change of loss on verilog, nats per token"
    return Comparison(
        base=Model(source=names[0], fingerprint="b"),
        learned=Axis(
            subject="verilog", measure="ce_change", part="", title=title, better="higher" if task else "lower"
        ),
        forgot=Axis(subject="self", measure="kl", part="", title=f"KL on {names[0]}", better="lower"),
        points=points,
        pairs=pairs_of(points, "higher" if task else "lower"),
        rules=RULES,
        command=f"keeptune compare {names[1]}",
        commit=None,
        seed=0,
        versions={"torch": "2"},
        machine={},
    )


def titles(html: str) -> list[str]:
    (desk,) = re.findall(r'class="chart desk"[^>]*>(<svg .*?</svg>)', html, re.DOTALL)
    return re.findall(r"<title>(.*?)</title>", desk)


def test_the_page_says_what_was_compared() -> None:
    page = Page(compare_page(make_comparison()))
    body = words(page.all("body")[0])
    assert (
        "plain and replay are on the Pareto front. Surely different are 2 of 3 pairs in what they learned, and 2"
        in body
    )
    for fact in (*RULES.values(), "change of loss on verilog, nats per token; lower is better", "runs/poor", "0.1800"):
        assert fact in body
    rows = list(csv.DictReader(io.StringIO(page.all("textarea")[0].lstrip("\n"))))
    assert [(row["model"], row["front"]) for row in rows] == [("plain", "yes"), ("replay", "yes"), ("poor", "no")]
    assert [float(row["learned_low"]) for row in rows] == pytest.approx([-0.95, -0.9, -0.55])


@pytest.mark.parametrize("task", [False, True])
def test_no_model_lies_below_the_staircase(task: bool) -> None:
    points = make_comparison(task=task).points
    steps = front_steps(points, higher_is_better=task)
    for one in points:
        x, y = one.learned.value, one.forgot.value
        # What the staircase says can be reached at this x: the least forgotten by those that learned as much.
        reached = [height for across, height in steps if (across >= x if task else across <= x)]
        assert y >= min(reached)
        assert (y == min(reached)) is one.front


def test_every_mark_says_its_numbers_and_none_that_are_missing() -> None:
    comparison = make_comparison()
    points = [comparison.points[0], replace(comparison.points[1], learned=place(-0.8, None)), comparison.points[2]]
    said = titles(compare_page(replace(comparison, points=points)))
    assert said == [
        "base: nothing learned, nothing forgotten",
        "plain: learned −0.9000 [−0.9500, −0.8500], forgot 0.3000 [0.2500, 0.3500]",
        "replay: learned −0.8000, forgot 0.0400 [−0.0100, 0.0900]",
        "poor: learned −0.5000 [−0.5500, −0.4500], forgot 0.1800 [0.1300, 0.2300]",
    ]


def test_numbers_avoid_each_other() -> None:
    crowd = [point(str(step), place(-0.8 + 0.001 * step), place(0.2 + 0.0005 * step)) for step in range(4)]
    places = number_places([*crowd, point("far", place(-0.1), place(0.9))])
    assert len(set(places[:4])) == 4
    assert places[4] == (1, 1)
    assert number_places([point("only", place(0.0), place(0.0))]) == [(1, 1)]


def test_many_models_are_all_named() -> None:
    generator = np.random.default_rng(0)
    points = [
        point(f"m{index}", place(-float(x)), place(float(y))) for index, (x, y) in enumerate(generator.random((20, 2)))
    ]
    points[0] = replace(points[0], front=True)
    html = compare_page(replace(make_comparison(), points=points))
    shown = re.findall(r">(\d+ m\d+)</text>", html)
    assert {f"{index + 1} m{index}" for index in range(20)} <= set(shown)


@pytest.mark.parametrize("phone", [False, True])
def test_a_browser_draws_it_and_runs_no_hostile_name(browser: Browser, phone: bool) -> None:
    browser.open(
        compare_page(make_comparison((HOSTILE, LINK, "x" * 300))), width=375 if phone else 1280, phone=phone, dark=True
    )
    assert browser.complaints() == browser.requests() == []
    assert "hacked" not in browser.js("document.title")
    drawn = f".chart.{'phone' if phone else 'desk'} svg .mark"
    assert browser.js(f"document.querySelectorAll('{drawn}').length") == 4
    if phone:
        assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
