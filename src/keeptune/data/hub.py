"""Data sets of the hub, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from keeptune.errors import SourceError, SourceNotFound


def hub_rows(
    name: str, split: str, config: str | None = None, *, files: str | None = None, stream: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a hub data set with its place in it, such as `row 3`.

    Args:
        files: read these files of it alone: a name or a pattern.
        stream: fetch no more of it than rows are asked for, and keep nothing: for sets larger than a disk.

    Raises:
        SourceNotFound: no such data set, or the hub cannot be reached.
        SourceError: it cannot be read.
    """
    data_files = None if files is None else {split: files}
    try:
        rows = datasets.load_dataset(name, config, split=split, data_files=data_files, streaming=stream)
        for number, row in enumerate(rows, start=1):
            yield f"row {number}", row
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        missing = isinstance(error, (FileNotFoundError, ConnectionError))
        raise (SourceNotFound if missing else SourceError)(
            f"cannot load split {split} of the hub data set {name}: {reason}",
            "check name, split (org/name:split) and network, or name a local file",
        ) from error
