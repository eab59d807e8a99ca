"""A cell that is one run of `keeptune tune`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from common.grid import Cell
from common.runner import once
from common.small.decoders import tiny_base
from common.texts import source_of
from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings
from keeptune.storage import read_lines

_FIELDS = {field.name for field in dataclasses.fields(TuneSettings)}


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune with the cell's settings, into `run` in its folder. A stopped run resumes from its last checkpoint."""
    model = str(once(home.parent / "shared" / "tiny", tiny_base)) if cell["model"] == "tiny" else cell["model"]
    settings = settings_of(cell, model=model, out=str(home / "run"))
    tune(settings, resume=(home / "run").is_dir(), label=home.name)
    return {"readings": len(read_lines(home / "run" / "runs.jsonl"))}


def settings_of(cell: Cell, **own: Any) -> TuneSettings:
    """Settings of a run: those of the cell that `keeptune tune` has, and the run's own."""
    settings = {key: value for key, value in cell.items() if key in _FIELDS}
    return TuneSettings(**{**settings, "data": source_of(cell["data"]), **own})
