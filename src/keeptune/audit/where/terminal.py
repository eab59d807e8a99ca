"""Where the drift sits, on standard output."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.audit.where.collector import GROUPS
from keeptune.stats import format_interval

_IN_WORDS = {"probability": "base's p {}", "position": "{} tokens into a window", "kind": "{}"}
_SHOWN = 2
_interval = partial(format_interval, form=".3f")


def print_where(report: dict[str, Any]) -> None:
    """The classes with most of the drift of each text, and the layers that make it; nothing that a model wrote."""
    if "where" not in report:
        return
    where = report["where"]
    table = Table(title="Where the drift sits: classes of tokens, their shares of KL and tokens")
    for column in ("text", "class"):
        table.add_column(column)
    for column in ("KL", "tokens", "nats per token"):
        table.add_column(column, justify="right")
    for name, text in where["texts"].items():
        for number, group in enumerate(GROUPS):
            classes = sorted(text["classes"][group], key=lambda entry: entry["kl_share"] or 0.0, reverse=True)
            for rank, entry in enumerate(classes[:_SHOWN]):
                first = name if number == rank == 0 else ""
                table.add_row(first, _IN_WORDS[group].format(entry["class"]), *_numbers(entry))
        table.add_section()
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(layers_in_words(where["layers"]))


def layers_in_words(layers: dict[str, Any]) -> str:
    """The layer that helps most when it alone is put back, in a sentence or two."""
    if "unavailable" in layers:
        return f"Layers cannot be compared: {layers['unavailable']}."
    best = max(layers["layers"], key=lambda layer: layer["kl_repaired"]["value"])
    return (
        f"Putting back one layer helps most for layer {best['layer']} (of 0 to {len(layers['layers']) - 1}): KL on "
        f"{layers['text']} falls from {_interval(layers['kl'])} to {_interval(best['kl_layer_restored'])}, by "
        f"{_interval(best['kl_repaired'])} ({layers['tokens']} tokens of {layers['windows']} documents)."
    )


def _numbers(entry: dict[str, Any]) -> list[str]:
    share = "–" if entry["kl_share"] is None else f"{entry['kl_share']:.0%}"
    return [share, f"{entry['token_share']:.0%}", _interval(entry["kl"]) if entry["enough_evidence"] else NO_EVIDENCE]
