"""`runs.jsonl`: one row for each reading of the meter, what the laws read and a colleague can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keeptune.errors import SourceError
from keeptune.storage import append_line, write_text

FILE = "runs.jsonl"


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one reading."""
    append_line(path, json.dumps(row, allow_nan=False))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All readings of a run, in the order of writing; a last line cut short by a kill is left out.

    Raises:
        SourceError: a line in the middle is not JSON.
    """
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise SourceError(f"{path}, line {number}: not JSON ({error.msg})", "delete that line") from error
    return rows


def rewind(path: Path, step: int) -> None:
    """Drop the readings after `step`, which the run will take again."""
    kept = [row for row in read_rows(path) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
