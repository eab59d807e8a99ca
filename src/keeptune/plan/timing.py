"""What a run costs: seconds in all, seconds of its steps and readings, and peak memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any

import torch
from transformers import TrainerCallback

from keeptune.runs.run import tune_or_resume
from keeptune.runs.settings import TuneSettings


def timed(run: TuneSettings, label: str, *callbacks: TrainerCallback) -> tuple[float, int]:
    """Train, or continue an interrupted run. Returns the seconds and the peak memory in bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    begin = time.monotonic()
    tune_or_resume(run, label=label, extra_callbacks=list(callbacks))
    return time.monotonic() - begin, peak_memory()


def peak_memory() -> int:
    """Bytes: the most that torch held on the GPU since the last reset, or the most that this process ever held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Clock(TrainerCallback):
    """Times the steps and the last reading. It must come after the callback that takes the readings."""

    def __init__(self) -> None:
        self._begin = self._ended = self._step = 0.0
        self._steps: list[float] = []
        self.reading = self.inside = 0.0

    @property
    def step(self) -> float:
        """Median seconds of a step, without the first step, which warms up, if there are more."""
        return statistics.median(self._steps[1:] or self._steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the first reading."""
        self._begin = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start timing a step."""
        self._step = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop timing a step."""
        self._ended = time.monotonic()
        self._steps.append(self._ended - self._step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the last reading."""
        now = time.monotonic()
        self.reading, self.inside = now - self._ended, now - self._begin
