"""The report's drift as a table on standard output."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.audit.gate import floor_of
from keeptune.audit.verdict import SHOWN
from keeptune.stats import format_interval


def print_table(report: dict[str, Any]) -> None:
    """The report's numbers and verdicts on every text."""
    table = Table(title=f"Drift of {report['tuned']['source']} from {report['base']['source']}, nats per token")
    table.add_column("text")
    table.add_column("measure")
    table.add_column("value, 95 % interval", justify="right")
    table.add_column("noise floor", justify="right")
    table.add_column("verdict")
    for name, reading in report["texts"].items():
        about = [name, f"{reading['documents']} documents", f"{reading['tokens']} tokens", ""]
        for first, (key, label) in zip(about, SHOWN.items(), strict=True):
            value, floor = format_interval(reading["measures"][key]), floor_of(report, name, key)
            table.add_row(first, label, value, f"{floor:.2g}", reading["verdicts"][key])
        table.add_section()
    Console(highlight=False, markup=False, emoji=False).print(table)


def print_recovery(report: dict[str, Any]) -> None:
    """What the recovery probe found, in a few lines."""
    if "recovery" not in report:
        return
    found = report["recovery"]
    gaps = [format_interval(found["measures"][gap]) for gap in ("gap_before", "gap_after")]
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(
        f"Recovery on {found['text']}: CE(tuned) − CE(base) on {found['documents']} held-out documents is {gaps[0]}; "
        f"after both were tuned for {found['steps']} steps on {found['documents_tuned_on']} others, {gaps[1]}."
    )
    if found["recovered_share"]:
        console.print(f"Recovered share: {format_interval(found['recovered_share'])}.")
    console.print(f"{found['verdict'].capitalize()}: {found['meaning']}.")
