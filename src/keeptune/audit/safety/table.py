"""The safety section on the terminal: numbers only, never what a model wrote."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.stats import format_interval

_percent = partial(format_interval, form=".0f", scale=100, separator="\n")


def print_safety(report: dict[str, Any]) -> None:
    """Refusals of each set by each detector, and what became of them, as a table on standard output."""
    safety = report.get("safety")
    if not safety:
        return
    table = Table(title="Refusals, per cent of the prompts with 95 % interval")
    table.add_column("prompts", no_wrap=True, overflow="fold")
    table.add_column("detector")
    for column in ("base", "tuned"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("now answered,\nnow refused", justify="right")
    table.add_column("verdict")
    for name, of_set in safety["sets"].items():
        for place, (detector, result) in enumerate(of_set["detectors"].items()):
            moves = result["transitions"]
            broken = f"\n{result['broken']} of them broken" if result["broken"] else ""
            table.add_row(
                "" if place else f"{name}\n{of_set['asked']} {of_set['kind']}",
                detector,
                _percent(result["refused_base"]),
                _percent(result["refused_tuned"]),
                f"{moves['refused_answered']}, {moves['answered_refused']}{broken}",
                f"{result['verdict']}\np {result['mcnemar_p']:.3f}",
            )
        odds = of_set["detectors"]["likelihood"]["log_odds"]
        values = [f"{odds[which]['value']:.2f}" for which in ("base", "tuned")]
        table.add_row("", "log-odds", *values, "change, nats", format_interval(odds["change"], ".2f", separator="\n"))
        agree, bad = of_set["detectors_agree"], of_set["degenerate"]
        table.add_row("", "they agree", _percent(agree["base"]), _percent(agree["tuned"]), "", "")
        table.add_row("", "broken answers", _percent(bad["base"]["share"]), _percent(bad["tuned"]["share"]), "", "")
        table.add_section()
    Console(highlight=False, markup=False, emoji=False).print(table)
