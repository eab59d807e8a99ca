"""Rows of JSON: one object a line, a list of objects, or an object of columns. Damaged rows become `BadRow`."""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keeptune.data.files.raw import FIX_ENCODING, FIX_UTF16, as_utf8, has_wide_mark, text_of
from keeptune.data.rows import checked
from keeptune.errors import SourceError

_BLANK = re.compile(r"[ \t\n\r]*")
_FIX = "write one JSON object per line (.jsonl), or one list of objects (.json)"
_DEEP = "nests too deeply to be read"


@dataclass(frozen=True)
class BadRow:
    """In place of a row that cannot be read: the reason, as the rest of a sentence that starts with the row's place."""

    reason: str
    fix: str = "correct the row"


Record = tuple[str, Any]
"""Place within the file, such as `line 3`, and the row or a `BadRow`."""


class _Parser:
    """Python's JSON parser, which alone takes the last of two equal keys and names no row when a number is too long."""

    def __init__(self) -> None:
        self._flaw: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_int=self._integer)

    def value_at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that starts there, or a `BadRow`, and where it ends. Raises JSONDecodeError or RecursionError."""
        self._flaw = None
        value, end = self._decoder.raw_decode(text, start)
        return (value if self._flaw is None else BadRow(self._flaw)), end

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            self._flaw = f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice"
        return found

    def _integer(self, digits: str) -> int:
        limit = sys.get_int_max_str_digits() or sys.maxsize
        if len(digits) > limit:
            self._flaw = f"holds a number of {len(digits)} digits, more than the {limit} that can be read"
            return 0
        return int(digits)


def json_lines(stream: Any, name: str) -> Iterator[Record]:
    """Rows of JSON Lines, read line by line from a buffered reader (UTF-16 and UTF-32 as a whole)."""
    if has_wide_mark(stream.peek(4)):
        stream = io.BytesIO(as_utf8(stream.read(), name))
    elif b"\0" in stream.peek(4)[:4]:
        raise SourceError(f"{name} starts with a zero byte, as UTF-16 without a byte order mark does", FIX_UTF16)
    parser, offset = _Parser(), 0
    # Split at line feeds only: JSON strings may contain the other Unicode line separators unescaped.
    for number, raw in enumerate(stream, start=1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        if number == 1 and line.lstrip().startswith(b"["):
            raise SourceError(f"{name}, line 1 starts a JSON list, not one object a line", "give it the suffix .json")
        if line.strip():
            yield f"line {number}", _line(line, offset + len(raw) - len(line), parser)
        offset += len(raw)


def _line(line: bytes, offset: int, parser: _Parser) -> Any:
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return BadRow(f"is not UTF-8 text (byte {offset + error.start} of the file)", FIX_ENCODING)
    try:
        row, end = parser.value_at(text, _skip_blanks(text, 0))
        if (rest := _skip_blanks(text, end)) < len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except json.JSONDecodeError as error:
        return BadRow(f"is not JSON: {_told(error)}")
    except RecursionError:
        return BadRow(_DEEP)
    return row


def json_file(stream: Any, name: str) -> Iterator[Record]:
    """Rows of a .json file: a list of objects, an object of columns, a single row, or JSON Lines."""
    data = stream.read()
    text = text_of(data, name)
    start = _skip_blanks(text, 0)
    if start == len(text):
        return
    if text.startswith("[", start):
        yield from _list(text, start + 1, name)
        return
    try:
        value, end = _Parser().value_at(text, start)
    except RecursionError:
        end = start
    except json.JSONDecodeError as error:
        first_line = text[start:].partition("\n")[0]
        if "\n" in text[start:].rstrip() and isinstance(_line(first_line.encode(), 0, _Parser()), BadRow):
            raise _not_json(name, error) from error
        end = start
    if _skip_blanks(text, end) < len(text):
        yield from json_lines(io.BufferedReader(io.BytesIO(text.encode())), name)
    else:
        yield from _object(value, name)


def _skip_blanks(text: str, start: int) -> int:
    blanks = _BLANK.match(text, start)
    return start if blanks is None else blanks.end()


def _not_json(name: str, error: json.JSONDecodeError) -> SourceError:
    return SourceError(f"{name}, line {error.lineno} is not JSON: {_told(error)}", _FIX)


def _told(error: json.JSONDecodeError) -> str:
    return f"{error.msg.removesuffix(' at')} at column {error.colno}"


def _list(text: str, position: int, name: str) -> Iterator[Record]:
    """The elements of a list, one by one, so that a damaged one has a number."""
    parser, number, position = _Parser(), 0, _skip_blanks(text, position)
    try:
        while number or not text.startswith("]", position):
            number += 1
            row, position = parser.value_at(text, position)
            yield f"row {number}", row
            position = _skip_blanks(text, position)
            if text.startswith("]", position):
                break
            if not text.startswith(",", position):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
            position = _skip_blanks(text, position + 1)
        if (rest := _skip_blanks(text, position + 1)) < len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except json.JSONDecodeError as error:
        raise _not_json(name, error) from error
    except RecursionError as error:
        raise SourceError(f"{name}, row {number} {_DEEP}", f"correct the row, or {_FIX.split(',')[0]}") from error


def _object(value: Any, name: str) -> Iterator[Record]:
    """A single row, or columns of equal length."""
    columns = isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values())
    if columns:
        try:
            checked(value, name)
        except SourceError:
            lengths = {column: len(values) for column, values in value.items()}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{column} {length}" for column, length in lengths.items())
                raise SourceError(f"{name} has columns of unequal length ({told})", _FIX) from None
            rows = zip(*value.values(), strict=True)
            yield from ((f"row {number}", dict(zip(value, row, strict=True))) for number, row in enumerate(rows, 1))
            return
    yield "row 1", value
