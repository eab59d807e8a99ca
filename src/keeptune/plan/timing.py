"""What a run takes: seconds, a clock inside of it, and the peak of memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from keeptune.errors import Interrupted
from keeptune.runs.run import RUN_FILE, tune
from keeptune.runs.settings import TuneSettings


def timed(run: TuneSettings, label: str, *callbacks: TrainerCallback) -> tuple[float, int]:
    """Train, going on where a stopped run left a checkpoint; returns seconds and the peak of memory in bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    begin = time.monotonic()
    try:
        tune(run, resume=(Path(run.out) / RUN_FILE).is_file(), label=label, extra_callbacks=list(callbacks))
    except Interrupted as error:
        raise Interrupted(error.what, "run the same command again to go on") from error
    return time.monotonic() - begin, peak_memory()


def peak_memory() -> int:
    """Bytes: what torch held on the GPU since it was last asked, or what this process ever held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Clock(TrainerCallback):
    """Times steps and the last reading; its turn comes after the meter's."""

    def __init__(self) -> None:
        self._begin = self._ended = self._step = 0.0
        self._steps: list[float] = []
        self.reading = self.inside = 0.0

    @property
    def step(self) -> float:
        """Seconds of a step, the first left out where there are more: it warms up."""
        return statistics.median(self._steps[1:] or self._steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the first reading."""
        self._begin = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the step's clock."""
        self._step = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        self._ended = time.monotonic()
        self._steps.append(self._ended - self._step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the last reading."""
        now = time.monotonic()
        self.reading, self.inside = now - self._ended, now - self._begin
