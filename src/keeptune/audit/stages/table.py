"""A continual run's report as tables on standard output."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.audit.names import short_names
from keeptune.stats import format_interval

TITLES = {
    "texts": "Score on texts: −CE in nats per token (the loss with its sign turned), higher is better",
    "tasks": "Score on tasks: accuracy, higher is better",
}
DRIFT_TITLE = "Drift: KL(base‖checkpoint), nats per token"
UNIT_OF_DOCUMENTS = {"texts": "documents", "tasks": "items"}
TRANSFERS = {"acc": "ACC", "bwt": "BWT", "fwt": "FWT"}
ONE_STAGE = "needs two stages"


def print_stages(report: dict[str, Any]) -> None:
    """R, what follows from it, and the drift of every checkpoint."""
    console = Console(highlight=False, markup=False, emoji=False)
    for kind, rows in report["R"].items():
        console.print(_matrix(report, kind, rows, TITLES[kind], first_stage=0))
        if kind == "texts":
            console.print(_matrix(report, kind, report["drift"]["texts"], DRIFT_TITLE, first_stage=1))
        console.print(_summary(report["summary"][kind], kind))


def row_names(report: dict[str, Any]) -> list[tuple[str, str]]:
    """For the base and each stage `("stage 1", "the checkpoint's short name")`."""
    sources = [report["base"]["source"], *(checkpoint["source"] for checkpoint in report["checkpoints"])]
    stages = ["base", *(f"stage {checkpoint['stage']}" for checkpoint in report["checkpoints"])]
    return list(zip(stages, short_names(sources), strict=True))


def columns_of(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The columns of texts, or of tasks, in the order of R."""
    return [column for column in report["columns"] if column["kind"] == kind]


def _matrix(report: dict[str, Any], kind: str, rows: list[list[dict[str, Any]]], title: str, first_stage: int) -> Table:
    table = Table(title=title)
    table.add_column("after")
    for column in columns_of(report, kind):
        role = f"stage {column['stage']}" if column["stage"] else "other"
        count = f"{column['documents']} {UNIT_OF_DOCUMENTS[kind]}"
        table.add_column(f"{column['name']}\n{role}\n{count}", justify="right", no_wrap=True)
    for (stage, name), row in zip(row_names(report)[first_stage:], rows, strict=True):
        table.add_row(f"{stage}\n{name}", *(format_interval(cell, ".3f", separator="\n") for cell in row))
    return table


def _summary(summary: dict[str, Any], kind: str) -> Table:
    table = Table(title=f"Continual learning on {kind}")
    table.add_column("measure")
    table.add_column("value, 95 % interval", justify="right", no_wrap=True)
    table.add_column("verdict")
    for key, label in TRANSFERS.items():
        if summary[key]:
            table.add_row(label, format_interval(summary[key]), summary[key].get("verdict", ""))
    if summary["acc"] and not summary["bwt"]:
        table.add_row("BWT, FWT, forgetting", "", ONE_STAGE)
    for entry in summary["chaudhry"]:
        label = f"{entry['column']} forgotten since stage {entry['best_stage']}"
        table.add_row(label, format_interval(entry), entry["verdict"])
    for entry in summary["other"]:
        table.add_row(f"{entry['column']} forgotten since the base", format_interval(entry), entry["verdict"])
    return table
