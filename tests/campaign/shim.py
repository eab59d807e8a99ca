"""The shim of the C library: compiled where there is a compiler, and loaded into this process from its start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from keeptune.storage import sha256_file

_SOURCE = Path(__file__).with_name("shim.c")


def load_shim() -> None:
    """Start this command again with the shim in it; nothing happens where it is loaded, or where there is no gcc."""
    compiler = shutil.which("gcc")
    if has_shim() or compiler is None or sys.platform != "linux":
        return
    library = Path(tempfile.gettempdir()) / f"keeptune-shim-{sha256_file(_SOURCE)[:16]}.so"
    if not library.is_file():
        building = library.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", building, _SOURCE, "-ldl"], check=True)
        building.replace(library)
    command = [sys.executable, "-m", "tests.campaign.run", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "LD_PRELOAD": str(library)})  # noqa: S606


def has_shim() -> bool:
    """Whether this process has it, and with it all that it starts."""
    return "keeptune-shim-" in os.environ.get("LD_PRELOAD", "")


def read_log(file: Path) -> list[str]:
    """What the shim wrote down, in order."""
    return file.read_text(errors="replace").splitlines() if file.is_file() else []
