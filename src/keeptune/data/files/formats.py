"""The formats of data files. For one more add an entry to `FORMATS`; `raw.REFUSED` lists what is refused."""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeptune.data.files.jsonrows import BadRow, Record, json_file, json_lines
from keeptune.data.files.raw import REFUSED, opened, refuse_bytes, suffixes, text_of
from keeptune.data.files.tables import arrow_file, delimited, parquet_file, table_header_of
from keeptune.data.rows import layout_of
from keeptune.errors import SourceError

_HEAD = 512
_SNIFFED = 65_536
_TABLES = (b"PAR1", b"ARROW1")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format with a row for each document."""

    read: Callable[[Any, str], Iterator[Record]]
    """(buffered reader of the decompressed file, its name for errors) → rows with their places."""
    suffixes: tuple[str, ...]
    binary: bool = False


FORMATS = {
    "JSON Lines": Format(read=json_lines, suffixes=(".jsonl", ".jsonlines", ".ndjson", ".ldjson")),
    "JSON": Format(read=json_file, suffixes=(".json",)),
    "CSV": Format(read=delimited(","), suffixes=(".csv",)),
    "TSV": Format(read=delimited("\t"), suffixes=(".tsv", ".tab")),
    "PSV": Format(read=delimited("|"), suffixes=(".psv",)),
    "Parquet": Format(read=parquet_file, suffixes=(".parquet", ".pq"), binary=True),
    "Arrow": Format(read=arrow_file, suffixes=(".arrow", ".arrows", ".feather", ".ipc"), binary=True),
}


def format_of(path: Path) -> Format | None:
    """The format of a file by its suffix, compressed or not; None for a file that is one document of text."""
    suffix, _ = suffixes(path)
    return next((format for format in FORMATS.values() if suffix in format.suffixes), None)


def refuse_suffix(path: Path, name: str) -> None:
    """Raise `SourceError` if the suffix is that of a kind that is not read."""
    for suffix in {path.suffix.lower(), suffixes(path)[0]}:
        if suffix in REFUSED:
            what, fix = REFUSED[suffix]
            raise SourceError(f"{name} is {what}", fix)


def file_rows(path: Path, name: str) -> Iterator[tuple[str, str, Any]]:
    """The rows of a file, or its text as one row: unique name, place for errors, and the row or a `BadRow`.

    Raises `SourceError` if the file cannot be read, is of a kind that is not read, or is not what its suffix says.
    """
    refuse_suffix(path, name)
    format = format_of(path)
    try:
        with opened(path) as stream:
            if format is None:
                yield name, name, _document(stream, name)
                return
            refuse_bytes(stream.peek(_HEAD)[:_HEAD], name, but=_TABLES if format.binary else ())
            for number, row in format.read(stream, name):
                yield f"{name}:{number.split()[-1]}", f"{name}, {number}", row
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {name}: {reason}", "check the file, or copy or write it again") from error


def _document(stream: Any, name: str) -> Any:
    data = stream.read()
    refuse_bytes(data[:_HEAD], name)
    try:
        text = text_of(data, name)
    except SourceError as error:
        return BadRow(error.what.removeprefix(f"{name} "), error.fix)
    _refuse_rows(text, name)
    return {"text": text}


def _refuse_rows(text: str, name: str) -> None:
    """Raise `SourceError` if what is to be one document holds the rows of a table."""
    lines = [line for line in text[:_SNIFFED].split("\n") if line.strip()][:2]
    if not lines:
        return
    rows = [_object_of(line) for line in lines]
    if all(rows) and (len(rows) > 1 or layout_of(rows[0])):
        raise SourceError(f"{name} holds rows of JSON, not one text", "give it the suffix .jsonl")
    if lines[0].lstrip().startswith("[") and isinstance(value := _parsed(text), list) and _all_objects(value):
        raise SourceError(f"{name} holds a list of JSON rows, not one text", "give it the suffix .json")
    if table_header_of(lines[0]):
        raise SourceError(f"{name} holds rows of a table, not one text", "give it the suffix .csv or .tsv")


def _object_of(line: str) -> Mapping[str, object]:
    value = _parsed(line)
    return value if isinstance(value, dict) else {}


def _all_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
