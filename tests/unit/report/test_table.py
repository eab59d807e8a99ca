"""Tables: what is shown is rounded, what is copied has every digit, and a spreadsheet runs none of it."""

from __future__ import annotations

import csv
import io

import pytest

from keeptune.report.table import Cell, Column, Table, count, interval, left, number, text
from keeptune.report.terminal import print_tables
from keeptune.report.words import shown_number


def table(*rows: list[Cell], columns: tuple[str, ...] = ("text", "kl")) -> Table:
    return Table(name="t", caption="T", columns=[Column(name=name, csv=name) for name in columns], rows=rows)


def read(table: Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table.csv)))


def test_an_interval_is_four_columns_with_all_digits() -> None:
    given = {"value": 0.123456789012, "low": 0.1, "high": 0.2, "documents": 64}
    cell = interval(given)
    assert (cell.shown, cell.more) == ("0.1235", "[0.1000, 0.2000]")
    assert read(table([text("self"), cell])) == [
        ["text", "kl", "kl_low", "kl_high", "kl_n"],
        ["self", "0.123456789012", "0.1", "0.2", "64"],
    ]


def test_a_missing_interval_and_a_missing_number_are_empty() -> None:
    cell = interval({"value": 1.0, "low": None, "high": None}, n=1)
    assert cell.more == ""
    rows = read(table([text("a"), cell], [text("b"), number(None)]))
    assert rows[1:] == [["a", "1.0", "", "", "1"], ["b", "", "", "", ""]]
    assert number(None).shown == "–"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_numbers_do_not(start: str) -> None:
    formula = start + 'HYPERLINK("https://x.example","a")'
    rows = read(table([text(formula), number(-0.5)], columns=(formula, "kl")))
    assert rows == [["'" + formula, "kl"], ["'" + formula, "-0.5"]]


def test_text_in_csv_keeps_its_lines_commas_and_quotes() -> None:
    wild = 'a,"b"\nc'
    assert read(table([text("shown", wild), count(16_321)]))[1] == [wild, "16321"]


def test_rows_of_one_first_cell_are_a_group() -> None:
    rows = [[text(name), count(n)] for name, n in (("a", 1), ("a", 2), ("b", 3))]
    assert [len(group) for group in table(*rows).groups] == [2, 1]


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (-0.02114, ".4f", "−0.0211"),
        (-0.00001, ".4f", "0.0000"),
        (0.0, "+.1%", "0.0\u202f%"),
        (-0.125, "+.1%", "−12.5\u202f%"),
        (1.5e-7, ".2g", "1.5e−07"),
        (None, ".4f", "–"),
    ],
)
def test_numbers_as_shown(value: float | None, form: str, shown: str) -> None:
    assert shown_number(value, form) == shown


def test_the_same_table_on_a_terminal_and_in_markdown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    columns = [left("text"), Column("kl", unit="nats"), Column("n", left=True, page_only=True)]
    kl = interval({"value": 0.5, "low": 0.4, "high": 0.6}, n=9)
    made = Table(name="t", caption="T", columns=columns, rows=[[text("[red]x[/]"), kl, text("9 items")]])
    print_tables(made, "said [b]", Table.of("none", "Nothing", []))
    out = capsys.readouterr().out
    for shown in ("[red]x[/]", "0.5000 [0.4000, 0.6000]", "nats", "said [b]"):
        assert shown in out
    assert "9 items" not in out
    assert "Nothing" not in out
    assert made.markdown(lambda words: words.replace("[", "(")) == [
        "| text | kl | n |",
        "| ---|---:|--- |",
        "| (red]x(/] | 0.5000 (0.4000, 0.6000] | 9 items |",
    ]
