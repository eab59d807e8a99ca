"""Several processes that write one pool: what each of them writes, and the failure of one told to all.

The processes are those of torchrun, accelerate or srun, and write into one folder. Shards are dealt out in rounds.
After each round all tell what they wrote, and rank 0 writes the manifest. Which process writes a shard changes none of
its bytes, so a pool may be resumed by another number of processes.

Words travel through the launcher's store as JSON. The barrier of gloo waits for slow processes, and breaks where one is
dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from keeptune.errors import KeeptuneError, PoolError
from keeptune.system import default_device

_Work = TypeVar("_Work")
# A shard may take an hour on the slowest process, where a collective of training that takes minutes is a lost rank.
_PATIENCE = timedelta(days=7)
# The others look for a failure this often while they sample. A process that failed lives on for so long to be heard.
_LOOK_EVERY_SECONDS, _HEARD_WITHIN_SECONDS = 0.5, 10.0
_FAILED = "failed"


@dataclass(kw_only=True)
class Ranks:
    """The processes that write together; made by `together`."""

    rank: int = 0
    world: int = 1
    store: Any = None
    group: Any = None
    _told: int = 0
    _looked: float = field(default_factory=time.monotonic)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the manifest and speaks to the user."""
        return self.rank == 0

    def gather(self, value: Any = None) -> list[Any]:
        """Every process's JSON value, by rank; each calls it as often as the others.

        Raises `PoolError` if another process failed or is dead.
        """
        if self.world == 1:
            return [value]
        self._told += 1
        with self._others_alive():
            self.store.set(f"{self._told}/{self.rank}", json.dumps(value))
            waiting = dist.barrier(self.group, async_op=True)
            while not waiting.is_completed():
                self.look_sometimes()  # a process that failed does not come, and the store may go with it
                time.sleep(0.02)
            waiting.wait()
        self.look()
        with self._others_alive():
            return [json.loads(self.store.get(f"{self._told}/{rank}")) for rank in range(self.world)]

    def look(self) -> None:
        """Raise `PoolError` with the reason if another process has failed."""
        if self.world == 1:
            return
        with self._others_alive():
            failed = json.loads(self.store.get(_FAILED)) if self.store.check([_FAILED]) else None
            if failed is None or failed["rank"] == self.rank:
                return
            self.store.add("heard", 1)
        raise PoolError(f"process {failed['rank']} of {self.world} failed: {failed['what']}", failed["fix"])

    @contextlib.contextmanager
    def _others_alive(self) -> Iterator[None]:
        """Turn what a dead process does to the connections into a `PoolError`, with its reason if it left one."""
        try:
            yield
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError, RecursionError):
                if self.store.check([_FAILED]):
                    self.look()
            raise PoolError(
                "another of the processes has ended", "see its own message; the same command goes on from there"
            ) from error

    def look_sometimes(self) -> None:
        """`look`, but not at every token."""
        if time.monotonic() - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = time.monotonic()
            self.look()

    def tell(self, error: Exception) -> None:
        """Tell the others why this process fails, unless one failed before. It and rank 0, which may hold the store,
        wait a little for all to hear it."""
        fix = error.fix if isinstance(error, KeeptuneError) else "see the message of that process"
        what = error.what if isinstance(error, KeeptuneError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):  # where the process that holds the store is dead
            if self.store.check([_FAILED]):
                if not self.is_main:
                    return
            else:
                self.store.set(_FAILED, json.dumps({"rank": self.rank, "what": what, "fix": fix}))
            until = time.monotonic() + _HEARD_WITHIN_SECONDS
            while self.store.add("heard", 0) < self.world - 1 and time.monotonic() < until:
                time.sleep(0.05)

    def rounds(self, work: Sequence[_Work], alike: Callable[[_Work], Hashable] | None = None) -> Iterator[list[_Work]]:
        """The work in rounds: of each the process `rank` does the piece at that place, if there is one.

        `alike` is for a model whose weights are spread over the processes, so that all run the same number of forward
        passes: a round has a piece for every process, all equal in what `alike` gives, or one that all compute.
        """
        start = 0
        while start < len(work):
            pieces = list(work[start : start + self.world])
            if alike is not None and (len(pieces) < self.world or len({alike(piece) for piece in pieces}) > 1):
                pieces = pieces[:1]
            yield pieces
            start += len(pieces)


_ALONE = Ranks()
_current: list[Ranks] = []
_entered = 0


@contextlib.contextmanager
def together() -> Iterator[Ranks]:
    """The processes of this launch, for a block that all of them run; in one process nothing but the block.

    A block within a block uses the same processes. An error in the block is told to the others, and all of them raise.
    """
    global _entered
    if _current:
        yield _current[0]
        return
    if not dist.is_initialized() or dist.get_world_size() == 1:
        yield _ALONE
        return
    _entered += 1
    store = c10d.PrefixStore(f"keeptune-{_entered}", c10d._get_default_store())
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    ranks = Ranks(rank=dist.get_rank(), world=dist.get_world_size(), store=store, group=group)
    _current.append(ranks)
    try:
        yield ranks
        with ranks._others_alive():
            dist.barrier(group)  # and nothing after it: the process that holds the store may be gone
    except Exception as error:
        ranks.tell(error)
        raise
    finally:
        _current.clear()
    dist.destroy_process_group(group)


def join_processes() -> torch.device:
    """Join the processes that a launcher started, if one did; returns this process's device."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return default_device()
    from accelerate import PartialState  # noqa: PLC0415 — not for those who only read a pool

    device: torch.device = PartialState(cpu=not torch.accelerator.is_available()).device
    return device
