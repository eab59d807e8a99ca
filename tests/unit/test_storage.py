"""Files are whole or not there."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from keeptune.errors import KeeptuneError, StorageError
from keeptune.storage import (
    append_line,
    atomic_file,
    atomic_folder,
    sha256_file,
    storage_errors,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"n": math.nan})
    with pytest.raises(RuntimeError, match="mid-write"), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("mid-write")
    assert path.read_text() == '{\n  "n": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_folder(target) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / "file").write_text(content)
            assert not (target / "deep" / "file").exists() or content == "two"
    assert (target / "deep" / "file").read_text() == "two"
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert (target / "deep" / "file").read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    for line in ("ä", "b"):
        append_line(tmp_path / "deep" / "lines", line)
    assert (tmp_path / "deep" / "lines").read_text(encoding="utf-8") == "ä\nb\n"


def test_checksum(tmp_path: Path) -> None:
    write_text(tmp_path / "abc", "abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_full_disk_is_recognised_behind_other_errors(tmp_path: Path) -> None:
    def fails() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("serialisation failed") from error

    with pytest.raises(StorageError, match="disk is full") as caught, storage_errors(tmp_path):
        fails()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, KeeptuneError)
    with pytest.raises(RuntimeError, match="something else"), storage_errors(tmp_path):
        raise RuntimeError("something else")
