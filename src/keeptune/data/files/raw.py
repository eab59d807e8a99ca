"""The bytes of a data file: decompressed, known by their first bytes, and decoded to text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]

from keeptune.errors import SourceError

COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path: io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")),
}

_UNPACK = "unpack it, and name the folder or the files in it"
_AS_ROWS = "write its rows as .jsonl or .parquet"
_AS_TEXT = "extract its text to .txt files, or to a column text of a .jsonl"
_LEAVE_OUT = "leave it out: name the data files with a glob such as 'folder/**/*.jsonl'"
_DECOMPRESS = "decompress it; .gz, .bz2, .xz and .zst are read as they are"

_KINDS = (
    ("a zip archive", _UNPACK, ".zip"),
    ("a tar archive", _UNPACK, ".tar .tgz .tbz .tbz2 .txz .tzst"),
    ("an archive", _UNPACK, ".7z .rar .jar .whl"),
    ("compressed in a way that is not read", _DECOMPRESS, ".lz4 .br .z .sz .lzma .lzo .zlib"),
    ("a workbook", "export the sheet as .csv (UTF-8)", ".xlsx .xls .xlsm .xlsb .ods .numbers"),
    ("a pickle, which can run code when it is read", _AS_ROWS, ".pkl .pickle .pt .pth .joblib .dill"),
    ("a NumPy array", _AS_ROWS, ".npy .npz"),
    ("a PDF or a page to print", _AS_TEXT, ".pdf .ps .djvu"),
    ("an office document or a book", _AS_TEXT, ".doc .docx .odt .rtf .ppt .pptx .epub .mobi .pages"),
    ("a database", _AS_ROWS, ".db .sqlite .sqlite3 .mdb .duckdb"),
    ("in a format that is not read", _AS_ROWS, ".orc .avro .h5 .hdf5 .hdf .tfrecord .mat .sav .dta .rds .msgpack"),
    ("a file of model weights", _LEAVE_OUT, ".safetensors .gguf .ggml .onnx .ckpt"),
    ("an image", _LEAVE_OUT, ".png .jpg .jpeg .gif .webp .bmp .tif .tiff .ico .heic"),
    ("sound or video", _LEAVE_OUT, ".wav .mp3 .flac .ogg .m4a .mp4 .mkv .webm .avi .mov"),
    ("a pointer of DVC, not the data", "fetch the data: dvc pull", ".dvc"),
)
REFUSED = {suffix: (what, fix) for what, fix, suffixes in _KINDS for suffix in suffixes.split()}
"""Suffix → what the file is, what to do."""

_TEXT_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data", "fetch the data: git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the data", "fetch the data: git annex get"),
    (b"%PDF-", *REFUSED[".pdf"]),
    (b"{\\rtf", *REFUSED[".rtf"]),
)
_BINARY_MAGIC = (
    (b"PK\x03\x04", "a zip archive, or a document or workbook in one", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document or workbook of Microsoft Office", _AS_TEXT),
    (b"\x93NUMPY", *REFUSED[".npy"]),
    (b"SQLite format 3\x00", *REFUSED[".db"]),
    (b"\x89HDF\r\n\x1a\n", *REFUSED[".h5"]),
    (b"Obj\x01", *REFUSED[".avro"]),
    (b"ORC", *REFUSED[".orc"]),
    (b"FEA1", "an old Feather file (version 1)", _AS_ROWS),
    (b"GGUF", *REFUSED[".gguf"]),
    (b"\x89PNG", *REFUSED[".png"]),
    (b"\xff\xd8\xff", *REFUSED[".jpg"]),
    (b"GIF8", *REFUSED[".gif"]),
    (b"RIFF", "an image, sound or video", _LEAVE_OUT),
    (b"\x7fELF", "a program", _LEAVE_OUT),
    (b"7z\xbc\xaf\x27\x1c", *REFUSED[".7z"]),
    (b"Rar!", *REFUSED[".rar"]),
    (b"\x04\x22\x4d\x18", *REFUSED[".lz4"]),
    *((b"\x80" + bytes([protocol]), *REFUSED[".pkl"]) for protocol in range(2, 6)),
    (b"\x1f\x8b", "compressed with gzip", "append .gz to its name"),
    (b"BZh", "compressed with bzip2", "append .bz2 to its name"),
    (b"\xfd7zXZ\x00", "compressed with xz", "append .xz to its name"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "append .zst to its name"),
    (b"PAR1", "a Parquet file", "give it the suffix .parquet"),
    (b"ARROW1", "an Arrow file", "give it the suffix .arrow"),
)
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FIX_ENCODING = (
    "convert it to UTF-8, such as iconv -f LATIN1 -t UTF-8 FILE > NEW, "
    "or exclude it with a glob such as 'folder/**/*.txt'"
)

FIX_UTF16 = "convert it to UTF-8, such as iconv -f UTF-16LE -t UTF-8 FILE > NEW, or leave it out"


def suffixes(path: Path) -> tuple[str, str]:
    """The suffix of the format, and that of the compression or an empty string: `.jsonl` and `.gz`."""
    outer = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), outer) if outer in COMPRESSED else (outer, "")


def opened(path: Path) -> Any:
    """The decompressed bytes of a file, as a buffered reader with `peek`."""
    return COMPRESSED.get(suffixes(path)[1], lambda plain: plain.open("rb"))(path)


def refuse_bytes(head: bytes, name: str, *, but: Sequence[bytes] = ()) -> None:
    """Raise `SourceError` if a file starts as one of a kind that cannot be read under its name.

    `but` are the first bytes of kinds that can: a file of tables is no text.
    """
    known = _TEXT_MAGIC if _is_text(head) else _TEXT_MAGIC + _BINARY_MAGIC
    for magic, what, fix in known:
        if head.startswith(magic) and magic not in but:
            raise SourceError(f"{name} is {what}", fix)
    if head[257:262] == b"ustar":
        raise SourceError(f"{name} is a tar archive", _UNPACK)


def _is_text(head: bytes) -> bool:
    # The last bytes may be a part of a character.
    return _CONTROL.isdisjoint(head) and "\ufffd" not in head.decode("utf-8", "replace")[:-1]


def has_wide_mark(head: bytes) -> bool:
    """Whether the bytes begin with the byte order mark of UTF-16 or UTF-32."""
    return any(head.startswith(mark) for mark, _ in _BOMS)


def as_utf8(data: bytes, name: str) -> bytes:
    """The bytes as UTF-8 without a byte order mark, from UTF-8, or from UTF-16 or UTF-32 with one."""
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), None)
    if encoding is None:
        return data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise SourceError(f"{name} is no {encoding.upper()} text, as its start says: {error}", FIX_ENCODING) from error


def text_of(data: bytes, name: str) -> str:
    """The text of a file. Raises `SourceError` with the place of the first byte that is not text."""
    utf8 = as_utf8(data, name)
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        text = utf8.decode()
    except UnicodeDecodeError as error:
        line = utf8.count(b"\n", 0, error.start) + 1
        what = f"{name} is not UTF-8 text (byte {mark + error.start}, in line {line})"
        raise SourceError(what, FIX_ENCODING) from error
    if "\0" in text:
        raise SourceError(
            f"{name} is not text: byte {mark + utf8.index(0)} is zero, as in UTF-16 without a byte order mark",
            FIX_UTF16,
        )
    return text
