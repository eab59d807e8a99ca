"""Several processes of one launch, with the variables that torchrun gives them, and without its import of torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.forked import Forked

long = pytest.mark.skipif("KEEPTUNE_RANKS" not in os.environ, reason="long: make ranks")
KEEPTUNE = ("-m", "keeptune")


def launch(world: int, *command: str | Path, **environment: str) -> list[Forked]:
    """Start `python command` as each rank of so many."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment}
    if world > 1:
        given |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [str(word) for word in command]
    return [Forked(words, {**given, **_place(rank, world)}) for rank in range(world)]


def _place(rank: int, world: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}


def end(processes: Sequence[Forked], timeout: float = 240) -> list[tuple[int | None, str]]:
    """Exit code and stderr of each, by rank; none may hang."""
    told = [process.communicate(timeout)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def succeed(world: int, *command: str | Path, **environment: str) -> list[str]:
    """Run to the end; what each rank wrote to stderr."""
    ended = end(launch(world, *command, **environment))
    for rank, (code, text) in enumerate(ended):
        assert code == 0, f"rank {rank}: {text[-3000:]}"
    return [text for _, text in ended]
