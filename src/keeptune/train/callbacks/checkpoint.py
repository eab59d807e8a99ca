"""Checkpoints known to be complete and unchanged, and a clean stop on Ctrl-C."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.storage import changed_files, checksums, damaged_json, read_json, write_json
from keeptune.train.context import KeepContext
from keeptune.train.host.distributed import all_agree
from keeptune.train.readings import FILE

_COMPLETE = "complete"


class CheckpointCallback(TrainerCallback):
    """Marks a checkpoint as whole once everything of it is written and its weights are finite."""

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Write the mark, the checksums of all files and of the readings so far, once every rank has written."""
        tuned = [_local(parameter) for parameter in model.parameters() if parameter.requires_grad]
        finite = all_agree(all(bool(torch.isfinite(tensor).all()) for tensor in tuned), args.device)
        if finite and state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = {name: of for name, of in checksums(folder).items() if name != _COMPLETE}
            write_json(folder / _COMPLETE, {"files": files, "readings": _so_far(folder.parent / FILE)})


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def last_good_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a run's folder that was written whole and with finite weights."""
    marks = [mark for mark in folder.glob(f"checkpoint-*/{_COMPLETE}") if mark.parent.name[11:].isdigit()]
    return max((mark.parent for mark in marks), key=lambda path: int(path.name[11:]), default=None)


def check_files(checkpoint: Path, rank: int = 0, world: int = 1) -> None:
    """Hold the files of a checkpoint against their checksums: of so many processes each does a part.

    A mark of an earlier version is empty, and nothing is known of its files.

    Raises:
        SourceError: a file is missing or changed.
    """
    mark, fix = (
        checkpoint / _COMPLETE,
        f"delete {checkpoint} and run the same command again: it goes on from one before",
    )
    if mark.stat().st_size == 0:
        return
    with damaged_json(mark, fix):
        content = read_json(mark, fix)
        files, readings = sorted(content["files"].items())[rank::world], content["readings"]
        changed = changed_files(checkpoint, dict(files))
        if readings != _so_far(checkpoint.parent / FILE, int(readings["bytes"])):
            damaged = checkpoint.parent / FILE
            raise SourceError(f"{damaged} is damaged: it is not as it was written", "start the run anew (--overwrite)")
    if changed:
        raise SourceError(f"{checkpoint / changed[0]} is damaged: it is not as it was written", fix)


def _so_far(readings: Path, size: int | None = None) -> dict[str, int | str]:
    """The first bytes of the readings, to which a run appends, and their sha256; by default all."""
    content = readings.read_bytes()[:size] if readings.is_file() else b""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def forget_checkpoint(folder: Path, step: int) -> None:
    """Take the mark from the checkpoint of a step, if there is one: it is not to be resumed from."""
    (folder / f"checkpoint-{step}" / _COMPLETE).unlink(missing_ok=True)


class StopCallback(TrainerCallback):
    """Ends training after the step in hand, with a checkpoint, once `asked` is set."""

    def __init__(self, context: KeepContext) -> None:
        self.context = context
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop if asked to: all ranks after the same step, though a signal reaches them one by one."""
        if dist.is_initialized():
            asked = torch.tensor(int(self.asked), device=args.device)
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            self.asked = bool(asked)
        if self.asked:
            self.context.paused = state.global_step < state.max_steps
            control.should_save = True
            control.should_training_stop = True

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let the first Ctrl-C (or SIGTERM) ask for a stop after the step in hand; a second one stops at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            logger.info("Stopping after this step, with a checkpoint. Once more to stop at once.")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
