"""The machine: free memory, and the versions and hardware that are recorded with a result."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import torch
from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

_ROOT = Path("/")
_ASSUMED_BYTES = 4 * 2**30


def default_device() -> torch.device:
    """The accelerator of this machine, or the CPU.

    A CUDA build of torch names `cuda` as its accelerator on machines without a GPU too: whether one is there is asked.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def free_bytes(device: torch.device | str) -> int:
    """Bytes that new tensors on `device` can take: GPU memory, or this process's share of the machine's memory.

    On Linux, host memory is what the kernel can give without swapping, or what the tightest limit of the process's
    control groups leaves (a container, a batch job). Elsewhere it is the physical memory, and 4 GiB where the system
    does not report that. Processes that a launcher started on this machine share it. Callers must leave room.
    """
    device = torch.device(device)
    if device.type == "cuda":
        # The driver counts memory that torch's allocator keeps for later tensors as taken.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    meminfo = _ROOT / "proc/meminfo"
    if not meminfo.is_file():
        names = getattr(os, "sysconf_names", {})
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else _ASSUMED_BYTES
    available = int(_fields(meminfo)["MemAvailable:"]) * 1024
    return max(0, min([available, *_left_by_limits()])) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def used_bytes() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    statm = _ROOT / "proc/self/statm"
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0


def release() -> None:
    """Return unused memory to the system, between two pieces of work that need different memory.

    The command line sets an allocator that would keep it, for training steps that ask for the same sizes repeatedly.
    """
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _left_by_limits() -> list[int]:
    """Bytes that each memory limit above this process leaves; limits hold along the whole path of a group."""
    left: list[int] = []
    groups = _ROOT / "proc/self/cgroup"
    if not groups.is_file():
        return left
    for line in groups.read_text().splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        path = PurePosixPath(group)
        for above in (path, *path.parents):
            # In a container the path can be the host's, of which only the top can be read.
            folder = _ROOT / mount / above.relative_to("/")
            if (folder / limit).is_file() and (most := (folder / limit).read_text().strip()) != "max":
                # Inactive file pages count as usage, but the kernel drops them before it refuses memory.
                dropped = int(_fields(folder / "memory.stat").get(cache, 0))
                left.append(int(most) - int((folder / usage).read_text()) + dropped)
    return left


def _fields(path: Path) -> dict[str, str]:
    """First and second word of each line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: words[1] for words in lines}


def versions() -> dict[str, str]:
    """Versions of keeptune, of the libraries that decide its numbers, and of Python."""
    names = ("keeptune", "torch", "transformers", "trl", "peft")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}


def commit() -> str | None:
    """The commit of the checkout that this code runs from, with `-dirty` if files differ; None outside a checkout."""
    question = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *question]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class Provenance(TypedDict):
    """What made a result."""

    command: str
    commit: str | None
    seed: int
    versions: dict[str, str]
    machine: dict[str, str | int | None]


def machine() -> dict[str, str | int | None]:
    """Architecture, processor, accelerator and torch's threads."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "architecture": platform.machine(),
        "processor": names[0] if names else platform.processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def provenance(seed: int) -> Provenance:
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
