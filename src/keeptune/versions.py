"""The versions that a result is recorded with."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """keeptune's and those of the libraries that decide its numbers, and Python's."""
    names = ("keeptune", "torch", "transformers", "trl", "peft")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}
