"""Charts: drawings that stand in a page by themselves, say their numbers, and take names from outside for text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from keeptune.report.chart import Panel, chart, label
from keeptune.report.finding import found
from keeptune.report.forest import Point, bar_chart, forest_chart
from keeptune.report.view import forest_of
from keeptune.stats import Interval

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</svg><script>alert(1)</script>$\\frac{a}{b}$ \x00\x1b[31m \ud800 \u202etxt 🙂\n<b>&amp;"


def titles(svg: str) -> list[str]:
    return [str(title.text) for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]  # noqa: S314


def given(value: float, width: float | None = 0.1) -> dict[str, float | None]:
    return {"value": value, "low": None, "high": None} if width is None else {
        "value": value, "low": value - width, "high": value + width
    }  # fmt: skip


def test_a_forest_says_every_number_and_where_nothing_has_changed() -> None:
    points = [Point("self", "plain", given(0.5), "9 items"), Point("wiki", "chat", given(-0.25, None), "1 item")]
    made = forest_chart(points, "x", ".2f", name="f", title="T", sentence="S.", floors={"self": 0.1})
    for drawing in (made.desk, made.phone):
        assert titles(drawing) == ["self, plain: 0.50 [0.40, 0.60], 9 items", "wiki, chat: −0.25, 1 item"]
        root = ElementTree.fromstring(drawing)  # noqa: S314
        shown = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
        assert {"self", "wiki", "plain", "chat", "noise floor"} <= set(shown)
    assert made.description == "T. self, plain: 0.50 [0.40, 0.60], 9 items; wiki, chat: −0.25, 1 item."


def test_a_drawing_has_the_colors_of_the_page_and_ids_of_its_own() -> None:
    made = [forest_of("drift", "kl", [finding(name)]) for name in ("a", "b")]
    for drawing in (made[0].desk, made[0].phone):
        assert "currentColor" in drawing
        assert "var(--line)" in drawing
        assert not re.search(r"#0102|font-family|<style|<\?xml|width=\"\d+pt", drawing)
    ids = [set(re.findall(r' id="([^"]+)"', drawing)) for drawing in (made[0].desk, made[0].phone)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for own, drawing in zip(ids, (made[0].desk, made[0].phone), strict=True):
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', drawing))
        assert used == own
    assert made[0].desk == forest_of("drift", "kl", [finding("a")]).desk, "the same bytes for the same numbers"


def finding(name: str) -> object:
    half = Interval(value=0.3, low=0.2, high=0.4, documents=20)
    return found("drift", name, "kl", half, "document", noise_floor=0.01)


def test_names_from_outside_are_text() -> None:
    made = forest_chart([Point(HOSTILE, HOSTILE, given(1.0), HOSTILE)], HOSTILE, ".1f", name="f", title=HOSTILE,
                        sentence="")  # fmt: skip
    root = ElementTree.fromstring(made.desk)  # noqa: S314
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "g", "path", "use", "defs", "text", "title", "clipPath", "rect")
    }
    (title,) = titles(made.desk)
    assert title.startswith(
        "</svg><script>alert(1)</script>$\\frac{a}{b}$ \ufffd\ufffd[31m \ufffd ⟨U+202E⟩txt 🙂 <b>&amp;"
    )
    assert "<script" not in made.desk


def test_bars_stand_in_groups_and_missing_shares_are_dashes() -> None:
    made = bar_chart({"by kind": {"digits": [0.5, 0.25], "other": [None, 0.75]}}, ["of the KL", "of the tokens"],
                     name="b", title="T", sentence="")  # fmt: skip
    assert (
        titles(made.desk)
        == ["digits: 50.0\u202f% of the KL; 25.0\u202f% of the tokens"] * 2
        + ["other: – of the KL; 75.0\u202f% of the tokens"] * 2
    )


def test_lines_marks_and_rules_are_drawn() -> None:
    def draw(panel: Panel) -> None:
        panel.path([0, 1, 2], [3, 2, 1], ["a", "b", "c"], "#0072B2", "o", "first")
        panel.path([0, 1, 2], [1, 2, 3], ["d", "e", "f"], "#D55E00", "s", "second", dash="--")
        panel.band([0, 1, 2], [0, 1, 2], [2, 3, 4], "#0072B2")
        panel.rule(x=1, name="here")
        panel.rule(y=2, name="there")
        panel.text(1, 2, "7", (1, -1), "#0072B2")

    made = chart("c", "T", "S.", "what it shows", draw, x="step", y="loss")
    assert titles(made.desk) == list("abcdef")
    shown = {"".join(text.itertext()) for text in ElementTree.fromstring(made.desk).iter(f"{SVG}text")}  # noqa: S314
    assert {"first", "second", "here", "there", "7", "step", "loss"} <= shown


def test_a_label_is_short_and_on_one_line() -> None:
    assert label("a" * 24) == "a" * 24
    assert label("abcdefghijklmnopqrstuvwxyz", limit=10) == "abcde…wxyz"
    assert label("a\n  b\t\x07c") == "a b \ufffdc"
