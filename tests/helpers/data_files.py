"""Data as people have it on disk, file by file and folder by folder, and what keeptune makes of it.

`python -m tests.helpers.data_files` writes docs/data-formats.md; a test holds the page equal to what is read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from datasets import Dataset, DatasetDict
from pyarrow import feather, parquet

from keeptune.data.documents import load_documents
from keeptune.errors import SourceError

PAGE = Path(__file__).parents[2] / "docs" / "data-formats.md"
TEXTS = ["007", "NA", "two\nlines, é"]
ROWS = [{"text": text} for text in TEXTS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = b'id,text\r\n1,007\r\n2,NA\r\n3,"two\nlines, \xc3\xa9"\r\n'
OTHERS = "being of other splits: "
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@dataclass(frozen=True)
class Member:
    """One thing that a user may name as data."""

    what: str
    files: dict[str, bytes | Callable[[Path], object]]
    """Relative path → its bytes, or what makes it."""
    read: list[str] | None = None
    """The texts of its documents, or None if it is refused."""
    says: str = ""
    """What the refusal, or else the log, says (a part of it)."""
    named: str = ""
    """What the user names, relative to the folder; by default the folder, or the file if there is one."""


def arrow(rows: list[dict[str, Any]] = ROWS, *, stream: bool = False, to: str = "file") -> bytes:
    """An Arrow or Parquet file of rows."""
    table, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    if to == "parquet":
        parquet.write_table(table, sink)
    elif to == "feather1":
        feather.write_feather(table, sink, version=1)
    else:
        with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def archive(kind: str) -> bytes:
    """A zip archive, or a tar archive with this compression."""
    sink = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(sink, "w") as zipped:
            zipped.writestr("rows.jsonl", LINES)
    else:
        with tarfile.open(fileobj=sink, mode=f"w:{kind}") as tarred:
            info = tarfile.TarInfo("rows.jsonl")
            info.size = len(LINES)
            tarred.addfile(info, io.BytesIO(LINES))
    return sink.getvalue()


def numpy_file() -> bytes:
    """An array as numpy.save writes it."""
    sink = io.BytesIO()
    numpy.save(sink, numpy.arange(3))
    return sink.getvalue()


def saved(rows: list[dict[str, Any]] = ROWS, **splits: list[dict[str, Any]]) -> Callable[[Path], object]:
    """A folder that `save_to_disk` writes."""
    if splits:
        return lambda path: DatasetDict(
            {name: Dataset.from_list(given) for name, given in splits.items()}
        ).save_to_disk(path)
    return lambda path: Dataset.from_list(rows).with_format("numpy").save_to_disk(path)


def damaged(file: str, content: bytes | None = None) -> Callable[[Path], object]:
    """A folder of `save_to_disk` of which one file is gone, or is something else."""

    def make(path: Path) -> None:
        saved()(path)
        (path / file).unlink()
        if content is not None:
            (path / file).write_bytes(content)

    return make


def without_train(path: Path) -> None:
    """A DatasetDict of which the folder of the split train was not copied."""
    saved(train=ROWS, test=ROWS)(path)
    shutil.rmtree(path / "train")


def link(target: str) -> Callable[[Path], object]:
    """A symbolic link."""
    return lambda path: path.symlink_to(target)


def one(text: str) -> bytes:
    """A line with one row."""
    return json.dumps({"text": text}).encode() + b"\n"


CARD = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: en/a.jsonl\n---\n# Data\n"
TWO = b"---\nconfigs:\n- config_name: en\n  data_files: en/*.jsonl\n- config_name: fr\n  data_files: fr/*.jsonl\n---\n"

FORMATS = [
    Member("JSON Lines", {"r.jsonl": LINES}, TEXTS),
    Member("JSON Lines, `.jsonlines`", {"r.jsonlines": LINES}, TEXTS),
    Member("JSON Lines, `.ndjson`", {"r.ndjson": LINES}, TEXTS),
    Member("JSON Lines, suffix in capitals", {"R.JSONL": LINES}, TEXTS),
    Member("JSON, a list of objects", {"r.json": json.dumps(ROWS, indent=1).encode()}, TEXTS),
    Member("JSON, an object of columns", {"r.json": json.dumps({"text": TEXTS, "n": [1, 2, 3]}).encode()}, TEXTS),
    Member("JSON, one object over several lines", {"r.json": json.dumps(ROWS[0], indent=1).encode()}, TEXTS[:1]),
    Member("JSON Lines named `.json`", {"r.json": LINES}, TEXTS),
    Member("JSON, columns of unequal length", {"r.json": b'{"text": ["a", "b"], "n": [1]}'}, says="unequal length"),
    Member("JSON, pandas' columns by index", {"r.json": b'{"text": {"0": "a"}}'}, says="text is dict, not text"),
    Member("JSON, rows below a key", {"r.json": b'{"data": [{"text": "a"}]}'}, says="has the columns data"),
    Member("a JSON list named `.jsonl`", {"r.jsonl": json.dumps(ROWS, indent=1).encode()}, says="suffix .json"),
    Member("CSV", {"r.csv": CSV}, TEXTS),
    Member("CSV with a byte order mark", {"r.csv": b"\xef\xbb\xbf" + CSV}, TEXTS),
    Member("CSV separated by semicolons", {"r.csv": b"id;text\n1;a\n"}, says="by semicolons"),
    Member("CSV without a header", {"r.csv": b"1,some\n2,more\n"}, says="line 1 names the columns 1, some"),
    Member("CSV with a cell too many", {"r.csv": b"text\na\nb, c\n"}, says="line 3 has 2 cells"),
    Member("CSV with an open quote", {"r.csv": b'text\na\n"b\nc\n'}, says="line 3 opens a quote"),
    Member("CSV with quotes within a cell", {"r.csv": b'text\n"a" b\n'}, says="line 2 is damaged"),
    Member("CSV with two columns of one name", {"r.csv": b"text,text\na,b\n"}, says="has the column text twice"),
    Member("CSV with an empty text", {"r.csv": b"id,text\n1,\n2,a\n"}, ["", "a"]),
    Member("TSV", {"r.tsv": b'id\ttext\n1\t007\n2\tNA\n3\t"two\nlines, \xc3\xa9"\n'}, TEXTS),
    Member("columns between bars", {"r.psv": b"text|n\n007|1\nNA|2\n"}, TEXTS[:2]),
    Member("Parquet", {"r.parquet": arrow(to="parquet")}, TEXTS),
    Member("Arrow file", {"r.arrow": arrow()}, TEXTS),
    Member("Arrow stream", {"r.arrow": arrow(stream=True)}, TEXTS),
    Member("Feather, version 2", {"r.feather": arrow()}, TEXTS),
    Member("`.gz`", {"r.jsonl.gz": gzip.compress(LINES)}, TEXTS),
    Member("`.bz2`", {"r.csv.bz2": bz2.compress(CSV)}, TEXTS),
    Member("`.xz`", {"r.json.xz": lzma.compress(json.dumps(ROWS).encode())}, TEXTS),
    Member("`.zst`", {"r.jsonl.zst": pyarrow.compress(LINES, codec="zstd", asbytes=True)}, TEXTS),
    Member("Parquet in `.gz`", {"r.parquet.gz": gzip.compress(arrow(to="parquet"))}, TEXTS),
    Member(
        "Arrow stream in `.zst`", {"r.arrow.zst": pyarrow.compress(arrow(stream=True), "zstd", asbytes=True)}, TEXTS
    ),
    Member("a compressed text", {"r.txt.gz": gzip.compress(b"some text")}, ["some text"]),
    Member("any other UTF-8 file: one document", {"notes.rst": b"some\r\ntext"}, ["some\r\ntext"]),
    Member("folder of `save_to_disk`", {"d": saved()}, TEXTS, named="d"),
    Member(
        "DatasetDict of `save_to_disk`",
        {"d": saved(train=ROWS, test=[{"text": "held"}])},
        TEXTS,
        says="the split train is read, and not: test",
        named="d",
    ),
    Member("the same, a split by name", {"d": saved(train=ROWS, test=[{"text": "held"}])}, ["held"], named="d/test"),
    Member("DatasetDict without train", {"d": saved(a=ROWS, b=ROWS)}, says="no split train, but a, b", named="d"),
]

OTHER = [
    Member("text as bytes", {"r.parquet": arrow([{"text": b"a"}], to="parquet")}, says="text is bytes, not text"),
    Member("text as numbers", {"r.parquet": arrow([{"text": 7}], to="parquet")}, says="text is int, not text"),
    Member("a missing text", {"r.parquet": arrow([*ROWS, {"text": None}], to="parquet")}, says="row 4: text is None"),
    Member(
        "dates in another column", {"r.parquet": arrow([{"text": "a", "n": datetime(2024, 1, 1)}], to="parquet")}, ["a"]
    ),
    Member("cut data", {"d": damaged("data-00000-of-00001.arrow", b"cut")}, says="not a readable data set", named="d"),
    Member("a missing shard", {"d": damaged("data-00000-of-00001.arrow")}, says="not a readable data set", named="d"),
    Member("without dataset_info.json", {"d": damaged("dataset_info.json")}, says="not a readable data set", named="d"),
    Member("DatasetDict without its folder train", {"d": without_train}, says="lacks its split train", named="d"),
]

ENCODINGS = [
    Member("UTF-8 with a byte order mark, JSON Lines", {"r.jsonl": b"\xef\xbb\xbf" + LINES}, TEXTS),
    Member("UTF-8 with a byte order mark, text", {"r.txt": b"\xef\xbb\xbfsome"}, ["some"]),
    Member("UTF-16 with a byte order mark, JSON Lines", {"r.jsonl": LINES.decode().encode("utf-16")}, TEXTS),
    Member("UTF-16 with a byte order mark, CSV", {"r.csv": CSV.decode().encode("utf-16")}, TEXTS),
    Member("UTF-32 with a byte order mark, text", {"r.txt": "é".encode("utf-32")}, ["é"]),
    Member("UTF-16 without it, text", {"r.txt": "ab".encode("utf-16-le")}, says="byte 1 is zero"),
    Member("UTF-16 without it, CSV", {"r.csv": "text\nab\n".encode("utf-16-le")}, says="byte 1 is zero"),
    Member("UTF-16 without it, JSON Lines", {"r.jsonl": LINES.decode().encode("utf-16-be")}, says="zero byte"),
    Member("Latin-1, text", {"r.txt": b"one\ncaf\xe9"}, says="byte 7, in line 2"),
    Member("Latin-1, JSON Lines", {"r.jsonl": one("a") + b'{"text": "caf\xe9"}\n'}, says="line 2 is not UTF-8"),
    Member("Latin-1, CSV", {"r.csv": b"text\ncaf\xe9\n"}, says="byte 8, in line 2"),
    Member("line ends of Windows, JSON Lines", {"r.jsonl": LINES.replace(b"\n", b"\r\n")}, TEXTS),
]

KINDS = [
    Member("zip archive", {"r.zip": archive("zip")}, says="a zip archive"),
    Member("tar archive", {"r.tar": archive("")}, says="a tar archive"),
    Member("compressed tar archive", {"r.tar.gz": archive("gz")}, says="a tar archive"),
    Member("zip archive named `.txt`", {"r.txt": archive("zip")}, says="a zip archive"),
    Member("tar archive named `.txt`", {"r.txt": archive("")}, says="a tar archive"),
    Member("Excel workbook", {"r.xlsx": archive("zip")}, says="a workbook"),
    Member("pickle", {"r.pkl": b"\x80\x04N."}, says="a pickle"),
    Member("pickle named `.jsonl`", {"r.jsonl": b"\x80\x04N."}, says="a pickle"),
    Member("NumPy array", {"r.npy": numpy_file()}, says="a NumPy array"),
    Member("PDF", {"r.pdf": b"%PDF-1.7\n"}, says="a PDF"),
    Member("PDF named `.txt`", {"r.txt": b"%PDF-1.7\n"}, says="a PDF"),
    Member("Word document", {"r.docx": archive("zip")}, says="an office document"),
    Member("RTF", {"r.rtf": rb"{\rtf1 text}"}, says="an office document"),
    Member("database", {"r.sqlite": b"SQLite format 3\0"}, says="a database"),
    Member("Avro", {"r.avro": b"Obj\x01"}, says="not read"),
    Member("Feather, version 1", {"r.feather": arrow(to="feather1")}, says="Feather"),
    Member("image", {"r.png": b"\x89PNG\r\n"}, says="an image"),
    Member("Git LFS pointer, rows", {"r.parquet": LFS}, says="Git LFS pointer"),
    Member("Git LFS pointer, text", {"r.txt": LFS}, says="Git LFS pointer"),
    Member("git-annex pointer", {"r.jsonl": b"/annex/objects/SHA256E-s1--a.jsonl\n"}, says="git-annex pointer"),
    Member("DVC pointer", {"r.jsonl.dvc": b"outs:\n"}, says="DVC"),
    Member("`.lz4`", {"r.jsonl.lz4": b"\x04\x22\x4d\x18"}, says="compressed in a way"),
    Member("gzip named `.jsonl`", {"r.jsonl": gzip.compress(LINES)}, says="append .gz"),
    Member("JSON Lines named `.gz`", {"r.jsonl.gz": LINES}, says="cannot read r.jsonl.gz"),
    Member("cut `.gz`", {"r.jsonl.gz": gzip.compress(LINES)[:-9]}, says="cannot read r.jsonl.gz"),
    Member("cut `.zst`", {"r.csv.zst": pyarrow.compress(CSV, "zstd", asbytes=True)[:-5]}, says="cannot read r.csv.zst"),
    Member("Parquet named `.jsonl`", {"r.jsonl": arrow(to="parquet")}, says="suffix .parquet"),
    Member("JSON Lines named `.parquet`", {"r.parquet": LINES}, says="not a readable parquet file"),
    Member("cut Parquet", {"r.parquet": arrow(to="parquet")[:-9]}, says="not a readable parquet file"),
    Member("JSON Lines named `.arrow`", {"r.arrow": LINES}, says="not a readable Arrow file"),
    Member("JSON Lines named `.txt`", {"r.txt": LINES}, says="suffix .jsonl"),
    Member("JSON list without suffix", {"rows": json.dumps(ROWS, indent=1).encode()}, says="suffix .json"),
    Member("CSV named `.txt`", {"r.txt": CSV}, says="suffix .csv"),
    Member("JSON Lines in a `.gz` without `.jsonl`", {"r.gz": gzip.compress(LINES)}, says="suffix .jsonl"),
    Member("empty file of rows", {"r.jsonl": b""}, says="contains no documents"),
    Member("CSV with a header only", {"r.csv": b"text\n"}, says="contains no documents"),
    Member("empty Parquet", {"r.parquet": b""}, says="not a readable parquet file"),
    Member("pipe", {"r.jsonl": os.mkfifo}, says="a pipe or a device", named="r.jsonl"),
]

FOLDERS = [
    Member("texts", {"b.v": b"b", "a/z.py": b"z", "README.md": b"r", ".git/config": b"c"}, ["r", "z", "b"]),
    Member("texts, an empty one among them", {"__init__.py": b"", "a.py": b"a"}, ["", "a"]),
    Member("code with tests", {"src/train.py": b"t", "test/test_a.py": b"a", "train.py": b"b"}, ["t", "a", "b"]),
    Member(
        "texts in train/ and test/",
        {"train/a.txt": b"a", "test/b.txt": b"b"},
        ["a"],
        says=OTHERS + "test (test/b.txt)",
    ),
    Member(
        "train.txt and valid.txt",
        {"train.txt": b"a", "valid.txt": b"b"},
        ["a"],
        says=OTHERS + "validation (valid.txt)",
    ),
    Member("rows", {"a.jsonl": one("a"), "b/c.csv": b"text\nc\n"}, ["a", "c"]),
    Member("rows, an empty file among them", {"a.jsonl": one("a"), "b.csv": b""}, ["a"], says="no rows in b.csv"),
    Member("rows and texts", {"a.jsonl": one("a"), "notes.txt": b"n"}, says="others beside them (notes.txt)"),
    Member("rows and an archive", {"a.jsonl": one("a"), "b.zip": archive("zip")}, says="others beside them (b.zip)"),
    Member(
        "a cloned data set",
        {
            "README.md": b"# Data",
            "LICENSE": b"l",
            ".gitattributes": b"",
            ".git/x": b"",
            "dataset_infos.json": b"{}",
            "data/train-00000-of-00001.parquet": arrow(to="parquet"),
            "data/test-00000-of-00001.parquet": LFS,
            "load.py": b"code",
        },
        TEXTS,
        says="left out of FOLDER, being about the data: LICENSE, README.md, dataset_infos.json, load.py",
    ),
    Member(
        "a cloned data set of text",
        {"README.md": CARD.split(b"- ")[0].replace(b"configs:", b"dataset_info: {}") + b"---\n", "a.txt": b"a"},
        ["a"],
        says="being about the data: README.md",
    ),
    Member("configs in README.md, one", {"README.md": CARD, "en/a.jsonl": one("en"), "fr/a.jsonl": one("fr")}, ["en"]),
    Member(
        "configs in README.md, several",
        {"README.md": TWO, "en/a.jsonl": one("en"), "fr/a.jsonl": one("fr")},
        says="several configurations: en, fr",
    ),
    Member(
        "splits by file name",
        {"train.jsonl": one("a"), "test.jsonl": one("b"), "validation.jsonl": one("c")},
        ["a"],
        says=OTHERS + "test (test.jsonl), validation (validation.jsonl)",
    ),
    Member(
        "splits by folder name",
        {"train/a.jsonl": one("a"), "dev/a.jsonl": one("b")},
        ["a"],
        says=OTHERS + "validation (dev/a.jsonl)",
    ),
    Member(
        "a split beside unnamed rows",
        {"data.jsonl": one("a"), "eval.jsonl": one("b")},
        ["a"],
        says=OTHERS + "test (eval.jsonl)",
    ),
    Member(
        "splits and unnamed rows",
        {"train.jsonl": one("a"), "test.jsonl": one("b"), "c.jsonl": one("c")},
        says="files of none: c.jsonl",
    ),
    Member("no split train", {"test.jsonl": one("a"), "dev.jsonl": one("b")}, says="no split train"),
    Member(
        "a single other split",
        {"test.jsonl": one("a")},
        ["a"],
        says="a single split, and it is read",
        named=".",
    ),
    Member(
        "a glob over splits",
        {"train.jsonl": one("a"), "test.jsonl": one("b")},
        ["b", "a"],
        "(test, train), and all are read",
        "*.jsonl",
    ),
    Member("the same rows twice", {"r.jsonl": LINES, "r.jsonl.gz": gzip.compress(LINES)}, says="two formats"),
    Member("hidden files", {"a.jsonl": one("a"), ".b.jsonl": one("b")}, ["a"], says="not read: .b.jsonl"),
    Member("a link to a file outside", {"d/a.jsonl": link("../b.jsonl"), "b.jsonl": one("b")}, ["b"], named="d"),
    Member("a link to a folder outside", {"d/a": link("../b"), "b/c.jsonl": one("c")}, ["c"], named="d"),
    Member(
        "a link to a file inside",
        {"a.jsonl": one("a"), "b.jsonl": link("a.jsonl")},
        ["a"],
        says="read already: b.jsonl",
    ),
    Member("a link to a folder inside", {"a/a.jsonl": one("a"), "b": link("a")}, ["a"], says="read already: b"),
    Member("a link that loops", {"a.jsonl": one("a"), "b/c": link("..")}, ["a"], says="read already: b/c"),
    Member("a link to a folder around", {"d/a": link("../.."), "d/b.jsonl": one("b")}, says="around", named="d"),
    Member("a link that leads nowhere", {"a.jsonl": one("a"), "b.jsonl": link("gone")}, says="leads nowhere"),
    Member("links in a circle", {"a.jsonl": link("b.jsonl"), "b.jsonl": link("a.jsonl")}, says="leads nowhere"),
    Member("a file name that is not UTF-8", {os.fsdecode(b"caf\xe9.txt"): b"a", "b.txt": b"b"}, ["b", "a"]),
    Member("an empty folder", {"d": Path.mkdir}, says="contains no documents", named="d"),
]

HALF = b'{"text": "a\\ud800b"}\n'
BAD_ROWS = [
    Member(what, {"r.jsonl": one("fine") + row + b"\n" + one("more")}, says=f"r.jsonl, line 2{says}")
    for what, row, says in (
        ("not JSON", b'{"text": "a', " is not JSON"),
        ("not an object", b"[1, 2]", " is not an object"),
        ("half a surrogate pair", HALF.strip(), r": text holds half of a surrogate pair (\ud800) at character 2"),
        (
            "half a surrogate pair in a chat",
            rb'{"messages": [{"role": "user", "content": "\udfff"}]}',
            r": messages holds half of a surrogate pair (\udfff)",
        ),
        ("nests too deeply", b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", " nests too deeply"),
        (
            "nests too deeply in another column",
            b'{"text": "a", "x": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
            " nests too deeply",
        ),
        ("a number too long", b'{"text": "a", "id": ' + b"9" * 5000 + b"}", " holds a number of 5000 digits"),
        ("NaN for a text", b'{"text": NaN}', ": text is float"),
        ("null", b'{"text": null}', ": text is NoneType"),
        ("a number", b'{"text": 5}', ": text is int"),
        ("a key twice", b'{"text": "a", "text": "b"}', " has the key 'text' twice"),
        ("not UTF-8", b'{"text": "\xff"}', " is not UTF-8 text (byte 27 of the file)"),
        ("two objects on a line", b'{"text": "a"}{"text": "b"}', " is not JSON: Extra data"),
        ("other columns", b'{"body": "a"}', " has the columns body"),
        ("another layout", b'{"prompt": "a", "completion": "b"}', " has the layout prompt + completion"),
    )
]
SECTIONS = {
    "Formats": FORMATS,
    "Tables of types, and what is damaged": OTHER,
    "Encodings and line ends": ENCODINGS,
    "Other kinds of files, and suffixes that do not fit": KINDS,
    "Folders, globs and links": FOLDERS,
    "Rows (here the second of three; `--skip-bad-rows` leaves it out)": BAD_ROWS,
}


def members() -> Iterator[Member]:
    for section in SECTIONS.values():
        yield from section


def lay_out(member: Member, folder: Path) -> str:
    """Make the files of a member in an empty folder; returns what the user names."""
    for name, content in member.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
    single = next(iter(member.files)) if len(member.files) == 1 else ""
    return str(folder / (member.named or single))


def told(member: Member, folder: Path) -> str:
    """A line of the page: read, how many documents; or refused, why, and what to do."""
    source = lay_out(member, folder)
    try:
        documents = load_documents(source)
    except SourceError as error:
        # A library's own words change with its versions.
        own = r"is not a readable [\w ]+|is damaged|cannot read [^ :]+|is not JSON"
        what = re.sub(rf"({own}): .*", r"\1", error.what)
        return f"refused: {what} → {error.fix}".replace(str(folder), "FOLDER")
    said = f", and the log says: {member.says}" if member.says else ""
    return f"read: {len(documents)} document{'s' * (len(documents) != 1)}{said}"


INTRODUCTION = """# What keeptune reads as data

Made by `make data-formats` from files of each kind; a test holds it equal. DATA of `keeptune tune` and `plan`,
`--drift-text`, each SOURCE of `keeptune audit --text`, `keeptune replay --text` and `load_documents` are read by the
same rules. What is left out (hidden files, other splits, a README beside rows) is logged. FOLDER stands
for the folder of the files.
"""


def page() -> str:
    """docs/data-formats.md."""
    parts = [INTRODUCTION]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n\n| what | files | outcome |\n|---|---|---|")
        for member in section:
            with tempfile.TemporaryDirectory() as temporary:
                outcome = told(member, Path(temporary)).replace("|", "\\|")
            files = ", ".join(f"`{os.fsencode(name).decode('utf-8', 'backslashreplace')}`" for name in member.files)
            parts.append(f"| {member.what} | {files} | {outcome} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
