"""The page of an audit in a real Chromium: drawn, copied, printed, walked by keyboard, and inert."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from keeptune.audit.page import audit_page
from tests.helpers.audit_report import ALL, FORMULA, HOSTILE, full_report, hostile_report
from tests.helpers.browser import Browser
from tests.helpers.pages import Page

CHARTS = 10
DARK_INK = "rgb(231, 233, 236)"
TITLE = "What did the model forget?"
# What a reader sees of it: characters that turn others around are written out, and HTML drops NUL.
SEEN = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\x00", "")


@pytest.fixture(scope="module")
def page() -> str:
    return audit_page(full_report(), ALL)


@pytest.fixture(scope="module")
def hostile() -> str:
    return audit_page(hostile_report(), ALL)


def test_every_chart_has_the_colors_of_the_page_and_tells_its_numbers(browser: Browser, page: str) -> None:
    fills = "[...document.querySelectorAll('.chart.desk')].map(c => getComputedStyle(c.querySelector('text')).fill)"
    browser.open(page, dark=True)
    assert browser.js(fills) == [DARK_INK] * CHARTS
    browser.media(dark=False)
    assert browser.js(fills) == ["rgb(27, 31, 36)"] * CHARTS
    told = "[...document.querySelectorAll('.chart.desk')].map(c => c.querySelectorAll('.mark > title').length)"
    assert browser.js(told) == [2, 2, 2, 1, 4, 2, 8, 8, 4, 8]
    # A mark is where the pointer is, and the drawing stands in its box.
    inside = """[...document.querySelectorAll('.chart.desk .mark')].every(mark => {
      const box = mark.getBoundingClientRect(), svg = mark.closest('svg').getBoundingClientRect();
      return box.width > 0 && box.left >= svg.left - 8 && box.right <= svg.right + 8;
    })"""
    assert browser.js(inside) is True
    assert browser.complaints() == browser.requests() == []


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, hostile: str) -> None:
    browser.open(hostile)
    browser.js("for (const details of document.querySelectorAll('details')) details.open = true")
    assert browser.complaints() == browser.requests() == []
    assert browser.js("document.title") == TITLE
    made = "document.querySelectorAll('img, [onload], b, iframe, [href^=javascript]').length"
    assert browser.js(made) == 0
    assert browser.js("document.querySelectorAll('script').length") == 1
    addresses = "[...document.querySelectorAll('a')].every(link => link.getAttribute('href').startsWith('#'))"
    assert browser.js(addresses) is True
    seen = browser.js("document.body.innerText")
    assert seen.count(SEEN) > 60
    for place in (".lead", "#texts tbody th", "#gate td", ".passage .token", ".prompt", ".models pre", ".command"):
        assert SEEN in browser.js(f"document.querySelector({place!r}).textContent"), place
    ticks = "[...document.querySelectorAll('#drift-kl .desk text')].map(text => text.textContent)"
    assert any(text.startswith("=HYPERLINK") and text.endswith("self") for text in browser.js(ticks))
    assert browser.js("document.querySelectorAll('.chart a').length") == 0


def test_copied_tables_are_inert_in_a_spreadsheet(hostile: str) -> None:
    texts = [text.removeprefix("\n") for text in Page(hostile).all("textarea")]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text)) for cell in row]
    assert sum(cell.startswith("'" + FORMULA) for cell in cells) > 40
    live = [cell for cell in cells if cell.startswith(("=", "+", "-", "@")) and not number(cell)]
    assert live == []


def number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_a_table_is_copied_by_keyboard(browser: Browser, page: str) -> None:
    browser.open(page)
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.call("Browser.grantPermissions", **grant)
    browser.js("document.querySelector('#texts').closest('section').querySelector('button').focus()")
    browser.press("Enter")
    browser.js("new Promise(done => setTimeout(done, 100))")
    copied = browser.js("navigator.clipboard.readText()")
    row = next(csv.DictReader(io.StringIO(copied)))
    assert (row["measure"], row["value"], row["value_low"], row["value_n"]) == ("kl", "0.2678", "0.2578", "16")
    assert browser.js("document.activeElement.nextElementSibling.textContent") == "Copied."


def test_without_a_clipboard_the_text_is_shown_and_selected(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    browser.js("document.querySelector('button.copy').click()")
    assert browser.js("new Promise(done => setTimeout(() => done(getSelection().toString().slice(0, 10)), 100))") == (
        "on,measure"
    )
    assert browser.js("document.activeElement.id") == "summary-csv"


def test_the_keyboard_reaches_everything_and_focus_is_seen(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.press("Tab")
    assert browser.js("document.activeElement.className") == "skip"
    assert browser.js("document.activeElement.getBoundingClientRect().top") >= 0
    browser.press("Enter")
    browser.js("new Promise(done => setTimeout(done, 50))")
    assert browser.js("document.activeElement.id") == "main"
    reached = set()
    for _ in range(90):
        browser.press("Tab")
        place, outline = browser.js(
            "(e => [e.tagName + '.' + e.className, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if place == "BODY.":
            break
        assert outline == "solid", place
        reached.add(place)
    assert {"DIV.scroll", "BUTTON.copy", "SUMMARY.", "PRE.command"} <= reached
    browser.js("document.querySelector('details.answers summary').focus()")
    browser.press("Enter")
    assert browser.js("document.querySelector('details.answers').open") is True


def test_a_phone_scrolls_tables_in_their_own_box(browser: Browser, hostile: str, page: str) -> None:
    browser.open(hostile, width=390, height=844, phone=True)
    browser.js("for (const details of document.querySelectorAll('details')) details.open = true")
    assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    browser.open(page, width=390, height=844, phone=True)
    assert browser.js("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    wide = "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
    assert browser.js(wide) is True
    shown = """[...document.querySelectorAll('.chart svg')].filter(svg => svg.getBoundingClientRect().width > 0)
      .map(svg => [svg.closest('.chart').className, svg.getBoundingClientRect().width <= 360])"""
    assert browser.js(shown) == [["chart phone", True]] * CHARTS


def test_paper_gets_folded_tables_and_no_answers(browser: Browser, page: str, tmp_path: Path) -> None:
    browser.open(page, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        heights = """[...document.querySelectorAll('details')].map(
          d => [d.className, (d.querySelector('table, .example') ?? d).getBoundingClientRect().height > 0])"""
        shown = browser.js(heights)
        assert [of for name, of in shown if name == "printed"] == [True] * 6
        assert not any(of for name, of in shown if name != "printed")
        # Paper is white, whatever the screen is.
        assert browser.js("getComputedStyle(document.querySelector('.chart text')).fill") == "rgb(27, 31, 36)"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
