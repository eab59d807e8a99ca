"""The two tables of claims at the top of lab/README.md, and lab/verdicts.json, from the csv files alone.

    python lab/verdicts.py

An experiment's plot.py has a function `claims(rows)` from the rows of its results.csv to a list of `stats.Claim`. Its
optional `table(rows)` goes into the experiment's README between the marks below.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grid import read_csv
from stats import RULE, Claim

from keeptune.errors import ConfigError
from keeptune.log import say
from keeptune.storage import write_json, write_text

HERE = Path(__file__).resolve().parent
START, END = "<!-- verdicts: made by `make verdicts` -->", "<!-- end of verdicts -->"
TABLE_START, TABLE_END = "<!-- table: made by `make verdicts` -->", "<!-- end of table -->"


def collect(lab: Path) -> list[dict[str, Any]]:
    """Every claim of every experiment that has results, with its verdict, in the order of the folders' names."""
    found = []
    for script in sorted(lab.glob("*/plot.py")):
        table = script.parent / "results.csv"
        functions = runpy.run_path(str(script))
        if not table.is_file() or "claims" not in functions:
            continue
        claims: list[Claim] = functions["claims"](read_csv(table))
        for claim in claims:
            found.append(
                {"experiment": script.parent.name, **claim.as_dict(), "rows": f"{script.parent.name}/results.csv"}
            )
    return found


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
    return "\n".join([*lines, "", RULE])


def as_row(line: dict[str, Any], paper: str) -> str:
    """One claim as a row of Markdown; `paper` is the cell of the paper's number, if the table has one."""
    name, ours = line["experiment"], line["ours"]
    between = "" if ours["low"] is None else f" [{number(ours['low'])}, {number(ours['high'])}]"
    bound = f"> {number(line['above'])}" if line["above"] is not None else f"< {number(line['below'])}"
    why = f"; {line['untested']}" if line["untested"] else ""
    return (
        f"| [{name}]({name}/README.md) | {line['claim']} |{paper} "
        f"{line['measure']}: {number(ours['value'])}{between} (claim: {bound}){why} | {line['runs']} "
        f"| **{line['verdict']}** | [csv]({line['rows']}) |"
    )


def tables(lab: Path) -> dict[Path, str]:
    """The table of each experiment that has one, by the README that holds it."""
    found = {}
    for script in sorted(lab.glob("*/plot.py")):
        functions, table = runpy.run_path(str(script)), script.parent / "results.csv"
        if table.is_file() and "table" in functions:
            found[script.parent / "README.md"] = functions["table"](read_csv(table))
    return found


def put(page: Path, start: str, text: str, end: str) -> None:
    """Replace what stands between the two marks."""
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
    verdicts = collect(HERE)
    write_json(HERE / "verdicts.json", verdicts)
    put(HERE / "README.md", START, as_table(verdicts), END)
    for page, text in tables(HERE).items():
        put(page, TABLE_START, text, TABLE_END)
    for line in verdicts:
        say(f"{line['experiment']}: {line['claim']}: {line['verdict']}")


if __name__ == "__main__":
    main()
