"""The two tables of claims at the top of lab/README.md, and lab/verdicts.json, from the csv files alone.

    python lab/verdicts.py

An experiment's plot.py has a function `claims(rows)` from the rows of its results.csv to a list of `stats.Claim`. Its
optional `table(rows)` goes into the experiment's README between the marks below.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from common.grid import LAB
from common.results import results
from common.stats import RULE, Verdict, judged
from keeptune.errors import ConfigError
from keeptune.log import log_to_terminal, logger
from keeptune.storage import write_json, write_text

START, END = "<!-- verdicts: made by `make verdicts` -->", "<!-- end of verdicts -->"
TABLE_START, TABLE_END = "<!-- table: made by `make verdicts` -->", "<!-- end of table -->"


def collect() -> tuple[list[dict[str, Any]], dict[Path, str]]:
    """Every claim of every experiment with results and its verdict, by the names of the folders; and the tables of
    results, by the README that holds them."""
    claims, tables = [], {}
    for table in sorted(LAB.glob("*/results.csv")):
        folder = table.parent
        plot, rows = import_module(f"{folder.name}.plot"), results(folder, table)
        for line in judged(plot.claims(rows)):
            claims.append({"experiment": folder.name, **line, "rows": f"{folder.name}/{table.name}"})
        if hasattr(plot, "table"):
            tables[folder / "README.md"] = plot.table(rows)
    return claims, tables


def as_table(verdicts: list[dict[str, Any]]) -> str:
    """Two Markdown tables, the papers' claims and our own findings, and the rule below them."""
    of_papers = [line for line in verdicts if line["paper"] is not None]
    our_own = [line for line in verdicts if line["paper"] is None]
    lines = ["## The papers' claims", ""]
    lines += ["| experiment | claim | paper | ours, 95 % interval | runs | verdict | rows |", "|" + "---|" * 7]
    lines += [as_row(line, f" {line['paper']} |") for line in of_papers]
    lines += ["", "## Our own findings", ""]
    lines += ["| experiment | finding | measured, 95 % interval | runs | verdict | rows |", "|" + "---|" * 6]
    lines += [as_row(line, "") for line in our_own]
    return "\n".join([*lines, "", RULE, "", compared(verdicts)])


def compared(verdicts: list[dict[str, Any]]) -> str:
    """How many comparisons were made, and how many verdicts the adjustment for them took away."""
    numbers = {line["experiment"]: line["comparisons"] for line in verdicts if line["p"] is not None}
    by_experiment = ", ".join(f"{name} {number}" for name, number in numbers.items())
    lost = sum(undecided_by_holm(line) for line in verdicts)
    return (
        f"{sum(numbers.values())} comparisons were made: {by_experiment}. "
        f"{lost} of them would have a verdict by their interval alone, and have none after Holm's adjustment."
    )


def undecided_by_holm(line: dict[str, Any]) -> bool:
    """Whether the interval decides the claim and the adjusted p does not."""
    return line["verdict"] == Verdict.NOT_DECIDED and line["p"] is not None and line["p"] < 0.05 <= line["p_holm"]


def as_row(line: dict[str, Any], paper: str) -> str:
    """One claim as a row of Markdown; `paper` is the cell of the paper's number, if the table has one."""
    name, ours = line["experiment"], line["ours"]
    between = "" if ours["low"] is None else f" [{number(ours['low'])}, {number(ours['high'])}]"
    bound = f"> {number(line['above'])}" if line["above"] is not None else f"< {number(line['below'])}"
    why = f"; {line['untested']}" if line["untested"] else ""
    if undecided_by_holm(line):
        why += f"; p {number(line['p_holm'])} after Holm's adjustment for {line['comparisons']}"
    return (
        f"| [{name}]({name}/README.md) | {line['claim']} |{paper} "
        f"{line['measure']}: {number(ours['value'])}{between} (claim: {bound}){why} | {line['runs']} "
        f"| **{line['verdict']}** | [csv]({line['rows']}) |"
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
    write_json(LAB / "verdicts.json", claims)
    put(LAB / "README.md", START, as_table(claims), END)
    for page, text in tables.items():
        put(page, TABLE_START, text, TABLE_END)
    for line in claims:
        logger.info(f"{line['experiment']}: {line['claim']}: {line['verdict']}")


if __name__ == "__main__":
    main()
