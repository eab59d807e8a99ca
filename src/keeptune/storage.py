"""Atomic writes (temporary file, fsync, rename), checksums, and clear errors for what goes wrong on a disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keeptune.errors import KeeptuneError, SourceError, StorageError

# torch.save reports a failed write in these words, without the system's error number.
_TORCH_WRITER_MARKS = ("inline_container", "iostream error")
_DISK_FULL_HINT = "free some space (or choose another output folder) and run the same command again"
_DISK_FAILS_HINT = "check the disk and the system's log, then run the same command again"
_NO_PERMISSION = ("no permission for {}", "choose a place that you may read and write")
_NO_FOLDER = ("{} is a file or lies below one, where a folder is needed", "choose another path")
_REFUSALS = {
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: ("the file system of {} is read-only", "choose a place that you may write to"),
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: ("{} is a folder, where a file is needed", "give the path of a file"),
    errno.ENAMETOOLONG: ("the name is too long: {}", "choose a shorter one"),
    errno.ELOOP: ("{} is a link to itself", "choose another path"),
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn write errors below `path`, of any library, into a `StorageError` that says what to do."""
    try:
        yield
    except KeeptuneError:
        raise
    except Exception as error:
        known = storage_error(error, path)
        if known is None:
            raise
        raise known from error


def storage_error(error: BaseException, path: Path | None = None) -> StorageError | None:
    """A `StorageError` about `path` that describes an error of the disk or the system; None for other errors."""
    at = path or "the output"
    if named := getattr(error, "filename", None):
        # The name of a temporary file would not help the user.
        at = path if path is not None and str(named).endswith(".tmp") else named
    if _says(error, errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the disk is full: could not write {path or at}", _DISK_FULL_HINT)
    if _says(error, errno.EIO):
        return StorageError(f"the disk fails at {path or at}", _DISK_FAILS_HINT)
    if isinstance(error, RuntimeError) and any(mark in str(error) for mark in _TORCH_WRITER_MARKS):
        return StorageError(f"could not write {path or at}: the disk is full or failing", _DISK_FULL_HINT)
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        what, fix = _REFUSALS[error.errno]
        return StorageError(what.format(at), fix)
    return None


@contextmanager
def damaged_json(path: Path, fix: str) -> Iterator[None]:
    """Turn the errors of reading a JSON file that is cut off or has other fields into a `SourceError` with this fix."""
    try:
        yield
    except KeeptuneError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"it is not what keeptune writes there ({type(error).__name__}: {error})"
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            why = "it is not JSON"
        raise SourceError(f"{path} is damaged: {why}", fix) from error


def _says(error: BaseException | None, *numbers: int) -> bool:
    """Whether an error, or a cause of it, has one of the system's error numbers, or says so in its message."""
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        if any(getattr(error, "errno", None) == number or os.strerror(number) in str(error) for number in numbers):
            return True
        error = error.__cause__ or error.__context__
    return False


def make_folder(folder: Path) -> None:
    """Make a folder and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        # Its parents exist by now: file systems such as /proc take no folders.
        raise StorageError(f"cannot make a folder at {folder}", "choose another path") from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is fsynced and renamed to `path`, else removed.

    Raises `StorageError` if the disk is full or not writable. `path` is unchanged then.
    """
    path = Path(path)
    with storage_errors(path):
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _fsync(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success all of it is fsynced and renamed to `path`."""
    path = Path(path)
    with storage_errors(path):
        make_folder(path.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _fsync(file)
            temporary.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity raise ValueError: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, fix: str) -> Any:
    """Read what `write_json` wrote. Raises `SourceError` with this fix if the file is not JSON."""
    with damaged_json(path, fix):
        return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append one line in a single write and fsync it, so that a kill leaves whole lines only."""
    path = Path(path)
    with storage_errors(path):
        make_folder(path.parent)
        with path.open("ab", buffering=0) as file:
            file.write((line + "\n").encode())
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[Any]:
    """What `append_line` wrote as JSON, in order. A last line that a kill cut short is left out.

    Raises `SourceError` if a line in the middle is not JSON.
    """
    rows: list[Any] = []
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line else []
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise SourceError(f"{path}, line {number}: not JSON ({error.msg})", "delete that line") from error
    return rows


def free_disk(path: Path) -> int:
    """Bytes free on the file system that holds `path`, or would."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def checksums(folder: Path) -> dict[str, str]:
    """Hex sha256 of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def changed_files(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """The files of these checksums that are missing, cut off or changed."""
    return [name for name, sum_ in sums.items() if not (folder / name).is_file() or sha256_file(folder / name) != sum_]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
