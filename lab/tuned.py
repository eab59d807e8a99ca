"""A cell that is one run of `keeptune tune`: shared by the experiments on real models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decoders import tiny_base
from grid import Cell, Row, once
from texts import source_of

from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings
from keeptune.storage import read_lines

_FIELDS = {field.name for field in dataclasses.fields(TuneSettings)}


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune as the cell says, into `run` in its folder; a stopped run goes on from its last checkpoint."""
    model = str(once(home.parent / "shared" / "tiny", tiny_base)) if cell["model"] == "tiny" else cell["model"]
    settings = settings_of(cell, model=model, out=str(home / "run"))
    tune(settings, resume=(home / "run").is_dir(), label=home.name)
    return {"readings": len(read_lines(home / "run" / "runs.jsonl"))}


def settings_of(cell: Cell, **own: Any) -> TuneSettings:
    """What a run is told: those of the cell's settings that `keeptune tune` knows, and the run's own."""
    settings = {key: value for key, value in cell.items() if key in _FIELDS}
    return TuneSettings(**{**settings, "data": source_of(cell["data"]), **own})


def readings(home: Path, columns: tuple[str, ...], **own: Any) -> Iterator[Row]:
    """The columns of each reading of a cell's run, after its `own`."""
    for reading in read_lines(home / "run" / "runs.jsonl"):
        yield {**own, **{column: reading[column] for column in columns}}
