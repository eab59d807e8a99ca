"""Folders that hold one piece of work: claimed once, filled step by step, resumed where the work stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast

from keeptune.errors import OutputExists, SourceError
from keeptune.storage import damaged_json, make_folder, read_json, storage_errors, write_json
from keeptune.system import release, versions

Content = TypeVar("Content")

_STEP_KEYS = {"key", "checksum", "content"}


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The output folder of one piece of work. A marker file in it holds the settings of the work."""

    folder: Path
    marker: str  # name of the marker file, such as `run.json`
    kind: str  # what the folder holds, for error messages: `run`, `demo`
    renew: str = "delete the folder, or choose another --out"  # what to do when the marker is damaged

    @property
    def claimed(self) -> bool:
        """Whether the folder holds work of this kind. Raises `OutputExists` for a file, or a folder of other things."""
        if (self.folder / self.marker).is_file():
            return True
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExists(f"{self.folder} is a file", "choose another --out")
        # A process killed while it wrote the marker leaves the temporary file.
        unfinished = f".{self.marker}."
        if self.folder.is_dir() and any(not path.name.startswith(unfinished) for path in self.folder.iterdir()):
            raise OutputExists(f"{self.folder} is not empty and holds no {self.kind}", "choose another --out")
        return False

    def changed(
        self,
        settings: Mapping[str, Any],
        earlier_names: Mapping[str, str] | None = None,
        added: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Names of the settings that differ from those the folder was claimed with.

        `earlier_names` are those of settings that have been renamed since a version that may have claimed the folder;
        `added` are settings that such a version did not have, with what it did.
        Raises `SourceError` if the marker is damaged.
        """
        marker = self.folder / self.marker
        with damaged_json(marker, self.renew):
            claimed = read_json(marker, self.renew)
            # Earlier versions wrote the settings of all but runs without the versions beside them.
            before = dict(claimed.get("settings", claimed))
        for name, earlier in (earlier_names or {}).items():
            before.setdefault(name, before.get(earlier))
        before = {**(added or {}), **before}
        now = json.loads(json.dumps(dict(settings)))
        # A switch that is off did not exist before.
        return [name for name, value in now.items() if before.get(name, False if value is False else None) != value]

    def check(self, settings: Mapping[str, Any]) -> bool:
        """Whether work with these settings was begun here. Changes nothing.

        Raises `OutputExists` if the folder holds the same kind of work with other settings, or something else, and
        `SourceError` if the marker is damaged.
        """
        if not self.claimed:
            return False
        if changed := self.changed(settings):
            raise OutputExists(
                f"{self.folder} holds a {self.kind} with other settings ({', '.join(changed)})",
                "choose another --out, or delete the folder",
            )
        return True

    @property
    def day(self) -> date:
        """When the work was begun; today for new work, and for that of earlier versions, which wrote no date.

        Raises `SourceError` if the marker is damaged.
        """
        if not self.claimed:
            return date.today()
        marker = self.folder / self.marker
        with damaged_json(marker, self.renew):
            claimed = read_json(marker, self.renew)
            return date.fromisoformat(claimed["day"]) if "day" in claimed else date.today()

    def claim(self, settings: Mapping[str, Any], *, day: date | None = None) -> None:
        """Write the marker, unless work with these settings was begun here. Raises what `check` raises."""
        if not self.check(settings):
            begun = (day or date.today()).isoformat()
            write_json(self.folder / self.marker, {"versions": versions(), "day": begun, "settings": dict(settings)})

    def clear(self) -> None:
        """Delete what the folder holds. Raises `OutputExists` if it holds something else."""
        for path in self.folder.iterdir() if self.claimed or self.folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold an output folder for this process while the block runs. It is made, and deleted if it is left empty.

    The lock (flock) is the system's, on the folder itself: it adds no file, and ends with the process however that
    ends. Of processes that a launcher started together the first takes it. Where the file system or the system
    (Windows) has no such lock, there is none.

    Raises:
        OutputExists: another process holds the folder.
        StorageError: the folder cannot be made.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    with storage_errors(folder):
        make_folder(folder)
    handle = _locked(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # what is not empty stays
            for path in made:
                path.rmdir()
        if handle is not None:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputExists(
            f"another process is writing to {folder}", "wait until it ends, or choose another --out"
        ) from error
    except OSError:  # a network file system without locks
        os.close(handle)
        return None
    return handle


class Steps:
    """Finished steps of some work, one JSON file each in a folder; a file is written whole or not at all."""

    def __init__(self, folder: Path, **inputs: Any) -> None:
        """Steps depend on `inputs`, JSON values: a step that was kept under other inputs is computed again."""
        self.folder, self.inputs = folder, inputs

    def of(self, **inputs: Any) -> Steps:
        """The same folder, for steps that depend on these inputs too."""
        return Steps(self.folder, **self.inputs, **inputs)

    def file(self, name: str) -> Path:
        """Where the step is kept."""
        return self.folder / f"{name.replace(' ', '-')}.json"

    def once(
        self, name: str, compute: Callable[[], Content], *, bare: bool = False, refuse_damaged: str | None = None
    ) -> Content:
        """What `compute` returned, a JSON value, under the same name and inputs, in this run or an earlier one.

        Args:
            name: a few words, unique among the steps; letters, digits, spaces and `.-_` only.
            bare: accept a file that holds the content alone, without a checksum, as earlier versions wrote it.
            refuse_damaged: for a step that must not be computed again unasked: what the user should do about a file
                that cannot be used. A `SourceError` says so. By default the step is computed again.
        """
        file, key = self.file(name), _digest(self.inputs)
        kept = _read(file, key, bare=bare)
        if kept is None and refuse_damaged is not None and file.is_file():
            raise SourceError(f"{file} is damaged", refuse_damaged)
        if kept is not None:
            return cast(Content, kept[0])
        content = compute()
        release()
        write_json(file, {"key": key, "checksum": _digest(content), "content": content})
        return content


def _read(file: Path, key: str, *, bare: bool) -> tuple[Any] | None:
    """The content of a step's file, in a tuple as it may be None, if it is whole and of this key."""
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or not kept.keys() >= _STEP_KEYS:
        return (kept,) if bare else None
    whole = kept["key"] == key and kept["checksum"] == _digest(kept["content"])
    return (kept["content"],) if whole else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
