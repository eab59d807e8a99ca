"""What a result is recorded with, so that somebody else can make it again."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def versions() -> dict[str, str]:
    """keeptune's and those of the libraries that decide its numbers, and Python's."""
    names = ("keeptune", "torch", "transformers", "trl", "peft")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}


def commit() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` where files differ; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Architecture, processor and torch's threads."""
    import torch  # noqa: PLC0415 - the command line asks for versions before it needs torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "architecture": platform.machine(),
        "processor": names[0] if names else platform.processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def provenance(seed: int) -> dict[str, Any]:
    """Command, commit, seed, versions and machine of a result, for JSON."""
    script = Path(sys.argv[0])
    # `python -m keeptune` runs the package's __main__.py.
    name = script.parent.name if script.name == "__main__.py" else script.name
    return {
        "command": shlex.join([name, *sys.argv[1:]]),
        "commit": commit(),
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
    }
