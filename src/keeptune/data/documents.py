"""Documents by name: the built-in sets, local files and hub data sets; checked row by row; split by document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics as pydoc_topics
from typing import Any

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetsError

from keeptune.data.files.formats import FORMATS
from keeptune.data.files.jsonrows import BadRow
from keeptune.data.files.raw import text_of
from keeptune.data.files.read import GLOB_MARKS, read_file, read_folder, read_pattern
from keeptune.data.files.walk import files_below
from keeptune.data.rows import Columns, Unread, accepted_columns, checked
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.models.disk.wheels import VERILOG_WHEEL, fetch_wheel_members
from keeptune.models.guarded import first_line

_HUB_SET = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(\w[\w.-]*))?", re.ASCII)
_FILE_SUFFIXES = (*(suffix for format in FORMATS.values() for suffix in format.suffixes), ".txt", ".v", ".py", ".md")
_WIKITEXT = "wikitext:"
_SKIP = "or leave such rows out with --skip-bad-rows"
_BAD_ROWS_TOLD = 3
# Larger Verilog files are generated lists of cells, and a single one would outweigh the rest.
_VERILOG_MAX_BYTES = 60_000

# A title has one equals sign on each side, a section heading two or more.
_ARTICLE_TITLE = re.compile(r"^ = ([^=].*[^=]|[^=]) = $", re.MULTILINE)
_DETOKENIZED = [
    (re.compile(pattern), joined)
    for pattern, joined in (
        (r" @([-,.])@ ", r"\1"),
        (r" ([.,;:?!%)\]}])", r"\1"),
        (r"([(\[{$£€#]) ", r"\1"),
        (r" (n't|'(?:s|m|d|re|ve|ll))\b", r"\1"),
        (r'" ([^"\n]*?) "', r'"\1"'),
        (r"(?<!\w)' ([^'\n]*?) '", r"'\1'"),
        (r"(\w) ' (?=\w|$)", r"\1' "),
        (r" ([/–—]) ", r"\1"),
        (r"(?m)^ | $", ""),
    )
]

# One document before its checks: its unique name, its place for error messages, and its columns.
_Row = tuple[str, str, Any]


def load_documents(source: str, *, limit: int | None = None, skip_bad_rows: bool = False) -> Dataset:
    """Load documents to train or measure on.

    Args:
        source: `verilog` or `pydoc` (built in); a file with one row per document (JSON Lines, JSON, CSV, TSV, Parquet,
            Arrow, also compressed as .gz, .bz2, .xz or .zst); any other UTF-8 file, which is one document;
            `wikitext:FILE`, WikiText as published, one document per article; a folder or a glob of files; a folder of
            `save_to_disk`; or a hub data set `org/name[:split]` (default split `train`). docs/data-formats.md lists
            what is read and what is refused.
        limit: keep only the first `limit` documents. None keeps all.
        skip_bad_rows: leave out rows that cannot be read or have no accepted columns, and log their number and the
            first of them. By default the first such row is an error.

    Returns:
        A data set with the columns of one layout: `text` (str), or `prompt` and `completion` (str), or `messages`
        (list of role, content and `fields_json`, the rest of a message) with `tools` and `chat_template_kwargs` (JSON)
        where a chat has them; and the column `document`, the unique name of each document.

    Raises:
        SourceNotFound: no file or data set has that name.
        SourceError: rows without an accepted layout, damaged rows or files, or no documents.
        ConfigError: `limit` is not positive.
    """
    return read_documents(source, limit=limit, skip_bad_rows=skip_bad_rows)[0]


def read_documents(source: str, *, limit: int | None = None, skip_bad_rows: bool = False) -> tuple[Dataset, list[str]]:
    """The documents, as `load_documents` returns them, and what is wrong with each row that was left out."""
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} documents keeps nothing", "use 1 or more")
    columns: dict[str, list[Any]] = {}
    bad: list[str] = []
    unread = Unread()
    for name, place, row in _read(source):
        try:
            document = {**_checked(row, place), "document": name}
            _require_same_layout(list(document), list(columns), place)
        except SourceError as error:
            what = error.what.encode(errors="backslashreplace").decode()  # a column's name may be damaged too
            if not skip_bad_rows:
                # Where all rows have other columns, leaving them out would leave nothing.
                hint = "" if not columns and error.fix == accepted_columns() else f"; {_SKIP}"
                raise SourceError(what, f"{error.fix}{hint}") from error
            bad.append(what)
            continue
        for column, value in document.items():
            columns.setdefault(column, []).append(value)
        unread.add(row)
        if len(columns["document"]) == limit:
            break
    if not columns:
        told = f": every row is bad ({len(bad)}), the first: {bad[0]}" if bad else ""
        raise SourceError(f"{source} contains no documents{told}", "name a data set with at least one document")
    unread.report(source)
    if bad:
        first = "; ".join(bad[:_BAD_ROWS_TOLD]) + (" ..." if len(bad) > _BAD_ROWS_TOLD else "")
        rows = len(bad) + len(columns["document"])
        logger.warning(f"bad rows left out of {source}, {len(bad)} of {rows}: {first}")
    # Columns that a chat may have, such as tools, and none has.
    given = {name: values for name, values in columns.items() if any(one is not None for one in values)}
    return Dataset.from_dict(given), bad


def _checked(row: Any, place: str) -> Columns:
    """The columns of the row's layout. Raises `SourceError` for a row that cannot be trained or measured on."""
    if isinstance(row, BadRow):
        raise SourceError(f"{place} {row.reason}", row.fix)
    document = checked(row, place)
    values: list[tuple[str, Any]] = list(document.items())
    while values:
        column, value = values.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                what = f"{column} holds half of a surrogate pair (\\u{ord(value[error.start]):04x})"
                raise SourceError(f"{place}: {what} at character {error.start + 1}", "correct the row") from error
        elif isinstance(value, (list, dict)):
            values += [(column, item) for item in (value.values() if isinstance(value, dict) else value)]
    return document


def _require_same_layout(columns: list[str], before: list[str], place: str) -> None:
    if before and columns != before:
        layouts = (" + ".join(names[:-1]) for names in (columns, before))
        raise SourceError(
            "{} has the layout {}, rows before it {}".format(place, *layouts),
            "use one layout per run: load the others separately",
        )


def text_documents(texts: Sequence[str]) -> Dataset:
    """Documents from plain strings, named by their number. Raises `SourceError` if there are none or other values."""
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise SourceError(f"text {number} is {type(text).__name__}, not a string", "give a list of strings")
    if not len(texts):
        raise SourceError("the list of texts is empty", "give at least one text")
    return Dataset.from_dict({"text": list(texts), "document": [f"text {n}" for n in range(1, len(texts) + 1)]})


def split_documents(dataset: Dataset, held_out: float | int, seed: int) -> tuple[Dataset, Dataset]:
    """Split by document. A document's side depends only on its name and the seed, not on the order.

    Args:
        dataset: any data set with a `document` column; the rows of a document stay together.
        held_out: fraction of the documents (a float between 0 and 1) or their number (an int).

    Returns:
        Training rows and held-out rows, each in the original order and with at least one document.

    Raises:
        ConfigError: `held_out` is out of range.
        SourceError: too few documents for a split.
    """
    names = sorted(set(dataset["document"]), key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    if len(names) < 2:
        raise SourceError(
            "a single document cannot be split into a training and a held-out part",
            "give two documents or more: one a file of a folder, or one a row of a .jsonl",
        )
    if isinstance(held_out, float):
        if not 0.0 < held_out < 1.0:
            raise ConfigError(f"the held-out fraction {held_out} is not between 0 and 1", "use a fraction such as 0.1")
        count = min(max(round(held_out * len(names)), 1), len(names) - 1)
    elif (count := held_out) < 1:
        raise ConfigError(f"{count} held-out documents measure nothing", "hold out 1 or more")
    if count >= len(names):
        raise SourceError(
            f"cannot hold out {count} of {len(names)} documents: no document would be left to train on",
            f"hold out at most {len(names) - 1}",
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
        return read_folder(path)
    if path.is_file():
        return read_file(path)
    if source and path.exists():
        raise SourceError(f"{source} is a pipe or a device, not a file", "write the data to a file, and name the file")
    if source in built_in:
        return built_in[source]()
    if source.startswith(_WIKITEXT):
        return _articles(Path(source.removeprefix(_WIKITEXT)).expanduser())
    if GLOB_MARKS & set(source):
        return read_pattern(source, path)
    if "://" in source:
        raise SourceNotFound(f"{source} is an address, and data is read from disk", "download it, and name the file")
    hub_set = _HUB_SET.fullmatch(source)
    names_a_file = path.suffix.lower() in _FILE_SUFFIXES or path.parent.is_dir()
    if hub_set is None or ".." in source or names_a_file:
        raise SourceNotFound(
            f"no data at {source}", "check the path, or name a hub data set org/name, verilog or pydoc"
        )
    rows = hub_rows(hub_set[1], hub_set[2] or "train")
    return ((f"{hub_set[1]}:{place.split()[-1]}", f"{hub_set[1]}, {place}", row) for place, row in rows)


def _articles(path: Path) -> Iterator[_Row]:
    if not path.is_file():
        raise SourceNotFound(f"no WikiText file at {path}", f"check the path after {_WIKITEXT}")
    for number, (title, text) in enumerate(articles(text_of(path.read_bytes(), str(path))), start=1):
        yield f"{number} {title}", f"{path.name}, article {number}", {"text": text}


def articles(text: str) -> Iterator[tuple[str, str]]:
    """Title and text of every article of a WikiText file; words that the corpus replaced stay `<unk>`."""
    titles = list(_ARTICLE_TITLE.finditer(text))
    for index, title in enumerate(titles):
        end = titles[index + 1].start() if index + 1 < len(titles) else len(text)
        yield title[1], detokenized(text[title.start() : end])


def detokenized(text: str) -> str:
    """The text without the spaces and marks (`@-@`) that WikiText's tokenization inserted."""
    for pattern, joined in _DETOKENIZED:
        text = pattern.sub(joined, text)
    return text.strip() + "\n"


def hub_rows(
    name: str, split: str, config: str | None = None, *, files: str | None = None, stream: bool = False
) -> Iterator[tuple[str, Columns]]:
    """Every row of a hub data set with its place, such as `row 3`.

    `files` reads only these files: a name or a pattern. `stream` downloads only the rows that are used, and keeps
    nothing on disk: for sets larger than the disk. Raises `SourceNotFound` if there is no such data set or the hub
    cannot be reached, `SourceError` if the data set cannot be read.
    """
    data_files = None if files is None else {split: files}
    try:
        rows = datasets.load_dataset(name, config, split=split, data_files=data_files, streaming=stream)
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        missing = isinstance(error, (FileNotFoundError, ConnectionError))
        raise (SourceNotFound if missing else SourceError)(
            f"cannot load split {split} of the hub data set {name}: {first_line(error)}",
            "check the name, the split (org/name:split) and the network, or name a local file",
        ) from error


def _verilog() -> Iterator[_Row]:
    """The Verilog cell libraries of a synthesis tool, without copies, which would leak into the held-out part."""
    folder = fetch_wheel_members(*VERILOG_WHEEL) / VERILOG_WHEEL.select.split("*")[0]
    seen: set[bytes] = set()
    for path in files_below(folder):
        content = path.read_bytes()
        if len(content) > _VERILOG_MAX_BYTES or content in seen:
            continue
        seen.add(content)
        name = path.relative_to(folder).as_posix()
        yield name, name, {"text": text_of(content, name)}


def _pydoc() -> Iterator[_Row]:
    """The topics of Python's own `help()`: English about a programming language."""
    for name, text in sorted(pydoc_topics.items()):
        yield name, name, {"text": text}
