"""Files are whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from keeptune.errors import KeeptuneError, SourceError, StorageError
from keeptune.storage import (
    append_line,
    atomic_file,
    atomic_folder,
    damaged_json,
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


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "the disk fails at")])
def test_a_full_or_failing_disk_is_recognised_behind_other_errors(tmp_path: Path, number: int, said: str) -> None:
    def fails() -> None:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError("serialisation failed") from error

    with pytest.raises(StorageError, match=said) as caught, storage_errors(tmp_path):
        fails()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, KeeptuneError)
    with pytest.raises(RuntimeError, match="something else"), storage_errors(tmp_path):
        raise RuntimeError("something else")


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "no permission for /a/b"), (errno.EPERM, "no permission for /a/b"), (errno.EROFS, "is read-only")],
)
def test_what_the_system_refuses_is_said_with_the_path_that_it_names(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(StorageError, match=said) as caught, storage_errors(tmp_path):
        raise OSError(number, "refused", "/a/b")
    assert "choose a place" in caught.value.fix


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "a.json", tmp_path / "file" / "deep" / "a.json"):
        with pytest.raises(StorageError, match="is a file or lies below one"):
            write_json(place, {})
        with pytest.raises(StorageError, match="is a file or lies below one"):
            append_line(place, "{}")
    with pytest.raises(StorageError, match="name is too long") as caught:
        write_json(tmp_path / ("long" * 80), {})
    assert ".tmp" not in str(caught.value)
    with pytest.raises(StorageError, match=f"{tmp_path}.* is a folder"), storage_errors(tmp_path):
        tmp_path.write_text("")


@pytest.mark.parametrize(
    ("text", "why"),
    [('{"steps": 1', "it is not JSON"), ("{}", "not what keeptune writes"), ("[1]", "not what keeptune writes")],
)
def test_json_that_is_cut_off_or_of_another_shape_is_damaged(tmp_path: Path, text: str, why: str) -> None:
    with (
        pytest.raises(SourceError, match=f"a.json is damaged: .*{why}") as caught,
        damaged_json(tmp_path / "a.json", "delete it"),
    ):
        assert json.loads(text)["steps"] == 1
    assert caught.value.fix == "delete it"
