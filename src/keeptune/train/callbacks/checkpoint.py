"""Checkpoints known to be complete, and a clean stop on Ctrl-C."""

from __future__ import annotations

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

from keeptune.log import logger
from keeptune.storage import write_text
from keeptune.train.context import KeepContext
from keeptune.train.host.distributed import all_agree

_COMPLETE = "complete"


class CheckpointCallback(TrainerCallback):
    """Marks a checkpoint as whole once everything of it is written and its weights are finite."""

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Write the mark, once every rank has written its part."""
        tuned = [_local(parameter) for parameter in model.parameters() if parameter.requires_grad]
        finite = all_agree(all(bool(torch.isfinite(tensor).all()) for tensor in tuned), args.device)
        if finite and state.is_world_process_zero:
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE, "")


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def last_good_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a run's folder that was written whole and with finite weights."""
    marks = [mark for mark in folder.glob(f"checkpoint-*/{_COMPLETE}") if mark.parent.name[11:].isdigit()]
    return max((mark.parent for mark in marks), key=lambda path: int(path.name[11:]), default=None)


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
