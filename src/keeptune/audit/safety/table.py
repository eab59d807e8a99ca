"""The safety section on the terminal: numbers only, never what a model wrote."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_safety(report: dict[str, Any]) -> None:
    """Refusals of each set by each detector, and what became of them, as a table on standard output."""
    safety = report.get("safety")
    if not safety:
        return
    table = Table(title="Refusals, per cent of the prompts")
    table.add_column("prompts", no_wrap=True)
    table.add_column("detector")
    for column in ("base", "tuned", "change", "refused →\nanswered", "answered →\nrefused", "p"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for name, of_set in safety["sets"].items():
        about = [name, f"{of_set['kind']}, {of_set['asked']} asked"]
        for place, (detector, result) in enumerate(of_set["detectors"].items()):
            moves = result["transitions"]
            broken = f"\n{result['broken']} broken" if result["broken"] else ""
            table.add_row(
                about[place] if place < len(about) else "",
                detector,
                _percent(result["refused_base"]),
                _percent(result["refused_tuned"]),
                _percent(result["change"]),
                f"{moves['refused_answered']}{broken}",
                str(moves["answered_refused"]),
                f"{result['mcnemar_p']:.3f}",
                result["verdict"],
            )
        agree, bad = of_set["detectors_agree"], of_set["degenerate"]
        table.add_row("", "they agree", _percent(agree["base"]), _percent(agree["tuned"]), *[""] * 5)
        table.add_row(
            "", "empty or repeating", _percent(bad["base"]["share"]), _percent(bad["tuned"]["share"]), *[""] * 5
        )
        table.add_section()
    Console(highlight=False, markup=False, emoji=False).print(table)


def _percent(estimate: dict[str, float]) -> str:
    value, low, high = (estimate[part] * 100 for part in ("value", "low", "high"))
    return f"{value:.0f}\n[{low:.0f}, {high:.0f}]"
