"""The process of vLLM killed (SIGKILL) at a random moment of writing a pool; the same command goes on from there."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from keeptune.storage import sha256_file
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer

SHARDS = 16
SIZES = ["--tokens", str(16 * 4 * SHARDS), "--length", "16", "--seed", "3", "--rows-per-shard", "4"]


def make_base(folder: Path) -> Path:
    """The tiny Llama, with heads as wide as vLLM's kernels for CPUs want them."""
    make_model(tie=False, width=128).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def start(base: Path, python: str, pool: Path) -> Forked:
    command = ["-m", "keeptune", "replay", str(base), "--out", str(pool), *SIZES, "--opening", "start"]
    return Forked([*command, "--engine", "vllm", "--vllm-python", python], dict(os.environ))


def finish(process: Forked) -> str:
    """Wait for the end; what went wrong."""
    _, error = process.communicate(timeout=400)
    return "" if process.returncode == 0 else f"code {process.returncode}: {error.strip()[-300:]}"


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def undisturbed(base: Path, python: str, pool: Path) -> dict[str, str]:
    fault = finish(start(base, python, pool))
    assert not fault, fault
    return bytes_of(pool)


def trial(number: int, base: Path, python: str, expected: dict[str, str], work: Path) -> dict[str, Any]:
    """One kill, and what became of it."""
    chance, pool = random.Random(number), work / f"pool-{number}"
    process = start(base, python, pool)
    worker = worker_of(process)
    # A third of the kills fall while vLLM starts, the others while it writes.
    wait_for = chance.choice([0, *chance.sample(range(1, SHARDS), 2)])
    while len(list(pool.glob("shard-*"))) < wait_for and process.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 12 if wait_for == 0 else 0.3))
    killed = worker.is_running()
    os.kill(worker.pid, signal.SIGKILL)
    said = finish(process)
    kept = {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}
    fault = finish(start(base, python, pool))
    found = bytes_of(pool)
    return {
        "trial": number,
        "killed": killed,
        "shards_before": len(kept),
        "said": "vLLM ended with code -9" in " ".join(said.split()),
        "fault": fault,
        "written_again": [name for name, when in kept.items() if (pool / name).stat().st_mtime_ns != when],
        "same_bytes": found == expected,
        "differing": sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name)),
    }


def worker_of(process: Forked) -> psutil.Process:
    """The process of vLLM, as soon as it is there."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            if any("vllm_worker" in part for part in child.cmdline()):
                return child
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1][-2000:])
