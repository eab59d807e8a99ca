"""What an audit has finished, kept in files, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keeptune.storage import write_json
from keeptune.system import release

Content = TypeVar("Content")


class Steps:
    """The finished steps below a folder, one JSON file each; `keeptune.storage` writes them whole or not at all."""

    def __init__(self, folder: Path, **inputs: Any) -> None:
        """Take `inputs`, JSON values, as what every step depends on: a step kept under other ones is done anew."""
        self.folder, self.inputs = folder, inputs

    def of(self, **inputs: Any) -> Steps:
        """The same folder for steps that depend on these inputs too."""
        return Steps(self.folder, **self.inputs, **inputs)

    def once(self, name: str, compute: Callable[[], Content]) -> Content:
        """What `compute` returned under the same name and inputs, in this run or an earlier one.

        Args:
            name: a few words, unique among the steps; letters, digits, spaces and `.-_` only.
            compute: returns a JSON value.
        """
        file = self.folder / f"{name.replace(' ', '-')}.json"
        key = _digest(self.inputs)
        kept = _read(file, key)
        if kept is None:
            kept = {"content": compute()}
            release()
            write_json(file, {"key": key, "checksum": _digest(kept["content"]), **kept})
        content: Content = kept["content"]
        return content


def _read(file: Path, key: str) -> dict[str, Any] | None:
    """A step's file, if it is whole and of this key."""
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("key") != key or "content" not in kept:
        return None
    return kept if kept.get("checksum") == _digest(kept["content"]) else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
