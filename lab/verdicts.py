"""The two tables of claims at the top of lab/README.md, and lab/verdicts.json, from csv files and papers.toml alone.

    python lab/verdicts.py

An experiment's plot.py has a function `claims(rows)` from the rows of its results.csv to a list of `stats.Claim`. Its
optional `table(rows)` goes into the experiment's README between the marks below.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from common.grid import LAB
from common.papers import Paper, Untested, papers, setting_of
from common.results import results
from common.stats import RULE, Verdict, judged
from keeptune.errors import ConfigError
from keeptune.log import log_to_terminal, logger
from keeptune.storage import write_json, write_text

START, END = "<!-- verdicts: made by `make verdicts` -->", "<!-- end of verdicts -->"
TABLE_START, TABLE_END = "<!-- table: made by `make verdicts` -->", "<!-- end of table -->"

Line = dict[str, Any]
"""A claim with its verdict, as in verdicts.json."""


def collect() -> tuple[list[Line], dict[Path, str]]:
    """Every claim of every experiment with results and its verdict, the papers' claims first, each table judged as a
    whole; and the tables of results, by the README that holds them."""
    claims, tables = [], {}
    for table in sorted(LAB.glob("*/results.csv")):
        folder = table.parent
        plot, rows = import_module(f"{folder.name}.plot"), results(folder, table)
        claims += [(folder.name, claim) for claim in plot.claims(rows)]
        if hasattr(plot, "table"):
            tables[folder / "README.md"] = plot.table(rows)
    lines: list[Line] = []
    for of_papers in (True, False):
        own = [(name, claim) for name, claim in claims if (claim.paper is not None) == of_papers]
        found = zip(own, judged([claim for _, claim in own]), strict=True)
        lines += [{"experiment": name, **line, "rows": f"{name}/results.csv"} for (name, _), line in found]
    return lines, tables


def untested(of: list[Paper]) -> list[Line]:
    """The papers' claims without rows, for verdicts.json."""
    return [
        {"experiment": claim.experiment, "claim": claim.claim, "paper": claim.paper, "figure": figure.name}
        | {"verdict": claim.state, "because": claim.because}
        for paper in of
        for figure in paper.figures
        for claim in figure.untested
        if claim.waits
    ]


def as_tables(verdicts: list[Line], of: list[Paper]) -> str:
    """Two Markdown tables, the papers' claims and our own findings, and the rule below them."""
    of_papers = [line for line in verdicts if line["paper"] is not None]
    our_own = [line for line in verdicts if line["paper"] is None]
    named = {name for paper in of for figure in paper.figures for name in figure.experiments}
    if missing := sorted({line["experiment"] for line in of_papers} - named):
        raise ConfigError(
            f"papers.toml has no figure for {', '.join(missing)}", "name them in a figure's `experiments`"
        )
    lines = ["## The papers' claims", ""]
    lines += ["| claim | paper | ours, 95 % interval | runs | verdict |", "|" + "---|" * 5]
    for paper in of:
        lines += paper_rows(paper, of_papers)
    lines += ["", "## Our own findings", ""]
    lines += ["| finding | measured, 95 % interval | runs | verdict |", "|" + "---|" * 4]
    for name in dict.fromkeys(line["experiment"] for line in our_own):
        lines += [f"| **{name}** | *{set_up(name)}* | | |"]
        lines += [as_row(line, "") for line in our_own if line["experiment"] == name]
    return "\n".join([*lines, "", RULE, "", compared(of_papers, our_own)])


def paper_rows(paper: Paper, lines: list[Line]) -> Iterator[str]:
    """A line for the paper; for each figure a line with the settings, then its claims."""
    yield f"| **{paper.title}** | | | | |"
    for figure in paper.figures:
        mine = {name: [line for line in lines if line["experiment"] == name] for name in figure.experiments}
        tested = {name: own for name, own in mine.items() if own}
        first, setting = f"**{figure.name}**", f"*{figure.setting}*"
        for name, own in tested.items():
            yield f"| {first} | {setting} | *{set_up(name)}* | | |"
            yield from (as_row(line, f" {line['paper']} |") for line in own)
            first = setting = ""
        waiting = [claim for claim in figure.untested if claim.waits]
        if waiting and not tested:
            yield f"| {first} | {setting} | | | |"
        yield from (as_untested(claim) for claim in waiting)


def set_up(name: str) -> str:
    """An experiment's setting with links to its page and its rows."""
    return f"{setting_of(name)}: [{name}]({name}/README.md), [rows]({name}/results.csv)"


def as_untested(claim: Untested) -> str:
    """A claim without rows as a row of Markdown."""
    why = claim.because or f"designed: [{claim.experiment}]({claim.experiment}/README.md)"
    return f"| {claim.claim} | {claim.paper} | {why} | – | **{claim.state}** |"


def compared(*tables: list[Line]) -> str:
    """How many comparisons were made in each table, and how many verdicts the adjustment for them took away."""
    first, second = (sum(line["p"] is not None for line in table) for table in tables)
    lost = sum(undecided_by_holm(line) for table in tables for line in table)
    return (
        f"{first + second} comparisons were made, {first} in the first table and {second} in the second. "
        f"{lost} of them would have a verdict by their interval alone, and have none after Holm's adjustment."
    )


def undecided_by_holm(line: Line) -> bool:
    """Whether the interval decides the claim and the adjusted p does not."""
    return line["verdict"] == Verdict.NOT_DECIDED and line["p"] is not None and line["p"] < 0.05 <= line["p_holm"]


def as_row(line: Line, paper: str) -> str:
    """One claim as a row of Markdown; `paper` is the cell of the paper's number, if the table has one."""
    ours = line["ours"]
    between = "" if ours["low"] is None else f" [{number(ours['low'])}, {number(ours['high'])}]"
    bound = f"> {number(line['above'])}" if line["above"] is not None else f"< {number(line['below'])}"
    why = f"; {line['untested']}" if line["untested"] else ""
    if undecided_by_holm(line):
        why += f"; p {number(line['p_holm'])} after Holm's adjustment"
    return (
        f"| {line['claim']} |{paper} {line['measure']}: {number(ours['value'])}{between} (claim: {bound}){why} "
        f"| {line['runs']} | **{line['verdict']}** |"
    )


def put(page: Path, start: str, text: str, end: str) -> None:
    """Replace the text between the two marks."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(start)
    _, end_mark, after = rest.partition(end)
    if not mark or not end_mark:
        raise ConfigError(f"{page} lacks the lines {start} and {end}", "put both where the table belongs")
    write_text(page, f"{before}{start}\n{text}\n{end}{after}")


def number(value: float) -> str:
    """Three significant digits."""
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e+" in text else text


def main() -> None:
    log_to_terminal()
    claims, tables = collect()
    found = papers()
    write_json(LAB / "verdicts.json", claims + untested(found))
    put(LAB / "README.md", START, as_tables(claims, found), END)
    for page, text in tables.items():
        put(page, TABLE_START, text, TABLE_END)
    for line in claims:
        logger.info(f"{line['experiment']}: {line['claim']}: {line['verdict']}")


if __name__ == "__main__":
    main()
