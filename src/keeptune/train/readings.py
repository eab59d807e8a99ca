"""`runs.jsonl`: one row for each reading of the meter, what the laws read and a colleague can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keeptune.errors import SourceError
from keeptune.storage import append_line, read_lines, write_text

FILE = "runs.jsonl"


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one reading."""
    append_line(path, json.dumps(row, allow_nan=False))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All readings of a run, in the order of writing; a last line cut short by a kill is left out.

    Raises:
        SourceError: a line in the middle is not JSON, or is no reading.
    """
    rows = read_lines(path) if path.is_file() else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "step" not in row:
            raise SourceError(f"{path} is damaged: line {number} is not a reading", "start the run anew (--overwrite)")
    return rows


def keep_earlier_run(path: Path) -> None:
    """Before a run that starts at its first step: rename the readings of an earlier run to `runs-1.jsonl` and so on."""
    if not path.is_file():
        return
    number = 1
    while (earlier := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(earlier)


def rewind(path: Path, step: int) -> None:
    """Drop the readings after `step`, and that of a best model, which the run will take again."""
    kept = [row for row in read_rows(path) if row["step"] <= step and "model_step" not in row]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def saved_step(args: Any, state: Any) -> int:
    """After how many steps the model was that the trainer holds at the end: the last, unless it loaded the best."""
    if args.load_best_model_at_end and state.best_model_checkpoint is not None:
        # Not `best_global_step`: that one may have had no checkpoint.
        return int(Path(state.best_model_checkpoint).name.rpartition("-")[2])
    return int(state.global_step)
