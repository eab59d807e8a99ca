"""Work on Ray: calls to actors that may die, and single calls somewhere in the cluster.

Processes of Ray run in the folder where the command was started, if their machine has it, so that all machines read the
same paths on a shared disk. keeptune must be installed on every machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from keeptune.errors import ConfigError, KeeptuneError, WorkerLost
from keeptune.log import logger

# So many deaths without a finished call in between are no accident.
_DEATHS_IN_A_ROW = 5
_RETRIES = 3
_Result = TypeVar("_Result")
Call = tuple[str, tuple[Any, ...]]


def start_ray() -> Any:
    """The module `ray`, connected to the cluster that `RAY_ADDRESS` or this machine names, or to a new one here.

    Raises `ConfigError` if Ray is not installed.
    """
    try:
        import ray  # noqa: PLC0415 — an extra
    except ImportError as error:
        raise ConfigError("--ray needs Ray", 'pip install "keeptune[cluster]", or leave --ray out') from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    return ray


def needs(ray: Any, gpus: int = 1) -> dict[str, int]:
    """What a worker takes of the cluster: GPUs where there are any, else a processor."""
    return {"num_gpus": gpus} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}


def here(function: Callable[..., _Result], *given: Any) -> _Result:
    """Call a function in this process."""
    return function(*given)


def anywhere(function: Callable[..., _Result], *given: Any) -> _Result:
    """Call a function in a process of Ray, with as many threads as here; again if that process dies.

    Raises what the function raises, and `WorkerLost` if its process died `_RETRIES` times more.
    """
    ray = start_ray()
    remote = ray.remote(max_retries=_RETRIES, **needs(ray))(_call)
    try:
        return ray.get(remote.remote(Path.cwd(), torch.get_num_threads(), function, given))
    except ray.exceptions.RayTaskError as error:
        raise raised(error) from error
    except ray.exceptions.RayError as error:
        raise _lost(_RETRIES + 1, error) from error


def _call(folder: Path, threads: int, function: Callable[..., _Result], given: tuple[Any, ...]) -> _Result:
    enter(folder)
    torch.set_num_threads(threads)
    return function(*given)


def enter(folder: Path) -> None:
    """Read relative paths as the command does, where this machine has its folder; leave talking to the command."""
    logger.setLevel("ERROR")
    with suppress(OSError):
        os.chdir(folder)


@dataclass(kw_only=True)
class Crew:
    """Actors that answer calls, one call at a time each. One that dies is replaced, and its call made again."""

    ray: Any
    make: Callable[[], Any]
    """Starts an actor. It must have a method `ready`."""
    workers: int
    _idle: list[Any] = field(default_factory=list)
    _busy: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)
    """The actor that a reply will come from, and the place of its call; None while the actor gets ready."""

    def run(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        """The place and the result of each call, as they end.

        Raises `WorkerLost` if actors died one after the other, and what a call raised.
        """
        waiting, deaths = deque(range(len(calls))), 0
        while waiting or any(place is not None for _, place in self._busy.values()):
            while waiting and self._idle:
                self._ask(self._idle.pop(), calls, waiting.popleft())
            while len(self._busy) < min(self.workers, len(calls)) and waiting:
                actor = self.make()
                self._busy[actor.ready.remote()] = actor, None
            (reply,), _ = self.ray.wait(list(self._busy))
            actor, place = self._busy.pop(reply)
            try:
                result = self.ray.get(reply)
            except self.ray.exceptions.RayTaskError as error:
                raise raised(error) from error
            except self.ray.exceptions.RayError as error:
                deaths += 1
                logger.warning(f"a worker of Ray died ({type(error).__name__}): its work is given to another one")
                self.ray.kill(actor)
                if place is not None:
                    waiting.appendleft(place)
                if deaths >= _DEATHS_IN_A_ROW:
                    raise _lost(deaths, error) from error
                continue
            self._idle.append(actor)
            if place is not None:
                deaths = 0
                yield place, result

    def _ask(self, actor: Any, calls: Sequence[Call], place: int) -> None:
        method, given = calls[place]
        self._busy[getattr(actor, method).remote(*given)] = actor, place

    def end(self) -> None:
        """End the actors."""
        for actor in (*self._idle, *(actor for actor, _ in self._busy.values())):
            self.ray.kill(actor)


def raised(error: Any) -> Exception:
    """What a call raised, without Ray around it."""
    if isinstance(error.cause, KeeptuneError):
        return error.cause
    return WorkerLost(f"a worker of Ray failed: {error.cause!r}", "its own traceback stands above this one")


def _lost(deaths: int, error: Exception) -> WorkerLost:
    said = str(error).strip().splitlines()[-1]
    fix = "see the logs of Ray's workers; they may need more memory, or less work at once"
    return WorkerLost(f"{deaths} workers of Ray died one after the other: {said}", fix)
