"""Rows of tables: CSV and TSV, Parquet, Arrow, and folders that `save_to_disk` of the datasets library wrote."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]
from datasets.exceptions import DatasetsError
from pyarrow.lib import ArrowException  # type: ignore[import-untyped]
from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

from keeptune.data.files.jsonrows import BadRow, Record
from keeptune.data.files.raw import text_of
from keeptune.data.rows import accepted_columns, layout_of
from keeptune.errors import SourceError
from keeptune.models.guarded import first_line

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_COLUMN = re.compile(r'"?[\w.-]*"?')
_SAVED = ("state.json", "dataset_dict.json")
_FIX_QUOTES = "quote cells that hold quotes, and double these"
_UNCLOSED = "unexpected end of data"


def delimited(delimiter: str) -> Callable[[Any, str], Iterator[Record]]:
    """A reader of tables with this delimiter.

    Every cell is text as it stands: `007`, `NA` and `2024-01-01` stay what they are, which type inference would change.
    """

    def read(stream: Any, name: str) -> Iterator[Record]:
        text = text_of(stream.read(), name)
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                last = reader.line_num
                if header is None or str(error) == _UNCLOSED:
                    what = "opens a quote that is never closed" if str(error) == _UNCLOSED else f"is damaged: {error}"
                    raise SourceError(f"{name}, line {first} {what}", _FIX_QUOTES) from error
                lines = f"(to line {last}) " if last > first else ""
                yield f"line {first}", BadRow(f"{lines}is damaged: {error}", _FIX_QUOTES)
                continue
            if cells is None:
                return
            if not cells:
                continue
            if header is None:
                header = _header(cells, delimiter, f"{name}, line {first}")
            elif len(cells) != len(header):
                told = f"has {len(cells)} cells, and the first line names {len(header)} columns"
                yield f"line {first}", BadRow(f"{told} (quote cells that hold {_DELIMITERS[delimiter]})")
            else:
                yield f"line {first}", dict(zip(header, cells, strict=True))

    return read


def _header(cells: list[str], delimiter: str, place: str) -> list[str]:
    _refuse_twins(cells, place)
    if layout_of(cells) is None:
        others = [name for mark, name in _DELIMITERS.items() if mark != delimiter and layout_of(cells[0].split(mark))]
        if len(cells) == 1 and others:
            raise SourceError(
                f"{place} separates its columns by {others[0]}, not by {_DELIMITERS[delimiter]}",
                "write it with commas (.csv) or tabs (.tsv)",
            )
        raise SourceError(f"{place} names the columns {', '.join(cells)}", accepted_columns())
    return cells


def _refuse_twins(names: Iterable[str], place: str) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise SourceError(f"{place} has the column {twins[0]} twice", "give each column a name of its own")


def table_header_of(line: str) -> bool:
    """Whether a line of text is the header of a table with the columns of a layout."""
    tables = [line.strip().split(mark) for mark in _DELIMITERS if mark in line]
    return any(layout_of(cells) and all(_COLUMN.fullmatch(cell) for cell in cells) for cells in tables)


def parquet_rows(path: Path) -> Iterator[Record]:
    """Every row of a parquet file with its place, such as `row 3`; a row that cannot be read is a `BadRow`.

    Raises `SourceError` if the file cannot be read.
    """
    with path.open("rb") as stream:
        yield from parquet_file(stream, str(path))


def parquet_file(stream: Any, name: str) -> Iterator[Record]:
    """Rows of a parquet file."""
    try:
        file = ParquetFile(_seekable(stream))
        _refuse_twins(file.schema_arrow.names, name)
        yield from _numbered(file.iter_batches())
    except ArrowException as error:
        raise SourceError(f"{name} is not a readable parquet file: {first_line(error)}", "write it again") from error


def arrow_file(stream: Any, name: str) -> Iterator[Record]:
    """Rows of an Arrow file (also called Feather) or an Arrow stream."""
    source = _seekable(stream)
    try:
        if stream.peek(6)[:6] == b"ARROW1":
            file = pyarrow.ipc.open_file(source)
            batches: Iterable[Any] = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = file = pyarrow.ipc.open_stream(source)
        _refuse_twins(file.schema.names, name)
        yield from _numbered(map(_validated, batches))
    except ArrowException as error:
        raise SourceError(f"{name} is not a readable Arrow file: {first_line(error)}", "write it again") from error


def is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    return any((folder / marker).is_file() for marker in _SAVED)


def saved_rows(folder: Path) -> Iterator[Record]:
    """Rows of a folder of one data set that `save_to_disk` wrote."""
    try:
        # As Arrow tables: in the saved format they might be tensors, and images would be decoded.
        tables = datasets.load_from_disk(str(folder)).with_format("arrow").iter(batch_size=1000)
        yield from _numbered(map(_validated, tables))
    except (ArrowException, OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
        what = f"{folder} is not a readable data set of save_to_disk: {first_line(error)}"
        raise SourceError(what, "write it again") from error


def _seekable(stream: Any) -> Any:
    on_disk = isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)
    return stream if on_disk else io.BytesIO(stream.read())


def _validated(batch: Any) -> Any:
    """The batch, whose lengths and offsets were checked: Arrow trusts them, and would read other memory or crash."""
    batch.validate(full=True)
    return batch


def _numbered(batches: Iterable[Any]) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for row in _rows(batch):
            number += 1
            yield f"row {number}", row


def _rows(batch: Any) -> Iterable[Any]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # an invalid character, or a date that Python does not have
        return (_row(batch.slice(number, 1)) for number in range(batch.num_rows))


def _row(one: Any) -> Any:
    for column in one.column_names if hasattr(one, "column_names") else one.schema.names:
        try:
            one.column(column).to_pylist()
        except (ValueError, OverflowError) as error:
            return BadRow(f"has a value in {column} that cannot be read: {first_line(error)}")
    return one.to_pylist()[0]
