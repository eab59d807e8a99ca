"""Hub data sets, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from keeptune.errors import SourceError, SourceNotFound


def hub_rows(
    name: str, split: str, config: str | None = None, *, files: str | None = None, stream: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a hub data set with its place, such as `row 3`.

    Args:
        files: read only these files of the data set: a name or a pattern.
        stream: download only the rows that are used, and keep nothing on disk: for sets larger than the disk.

    Raises:
        SourceNotFound: no such data set, or the hub cannot be reached.
        SourceError: the data set cannot be read.
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
            "check the name, the split (org/name:split) and the network, or name a local file",
        ) from error
