"""What callbacks and the replay term know of a run: facts, no trainer.

`Host` is what the surrounding trainer decides; `KeepContext` adds what `keeptune.train.prepare` made of it. Shapes: B
rows, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from keeptune.errors import Diverged
from keeptune.objective import Head
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import Teacher
from keeptune.train.config import KeepConfig
from keeptune.train.readings import Reading

_Result = TypeVar("_Result")


class Call(Protocol):
    """Runs a function on the unwrapped model, with the work of DDP, FSDP and autocast around it."""

    def __call__(self, compute: Callable[[nn.Module], _Result]) -> _Result:
        """The function's result."""
        ...


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the surrounding trainer decides."""

    device: torch.device
    dtype: torch.dtype
    """Of the matrix products: the mixed precision of the run, else the dtype of the weights."""
    rank: int
    world: int
    """Number of processes."""
    sharded: bool
    """Whether FSDP shards the weights, now or once training starts."""
    output_dir: Path
    seed: int
    learning_rate: float
    """Peak learning rate."""
    rows: int
    """Task rows of a micro-batch on each process."""
    accumulate: int
    """Micro-batches of an optimizer step."""
    tokenizer: Any
    call: Call
    task_loss: Callable[[], float | None]
    """Mean held-out loss of the model, nats per token; None where the trainer has no such loss. All processes call
    it, with the model in evaluation mode."""
    scheduler: Callable[[], Any]
    """The learning-rate scheduler, which exists once training starts."""
    tokens_seen: Callable[[], int]
    """Task tokens trained on since `train` began, over all processes; 0 where the trainer does not count them."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


@dataclass(kw_only=True)
class Window:
    """One optimizer step: its micro-batches so far, and their replay terms."""

    step: int
    """Optimizer steps before this one."""
    micros: int
    """Micro-batches in the step."""
    tokens: int
    """Replay tokens of the step, over all micro-batches and processes."""
    lambda_: float
    task: list[Tensor] = field(default_factory=list)
    """Each finished micro-batch's part of the trainer's own loss, without the replay term."""
    replay: list[Tensor] = field(default_factory=list)
    """Each finished micro-batch's part of the mean replay term, nats per token."""

    @property
    def micro(self) -> int:
        """Index of the next micro-batch."""
        return len(self.replay)

    def mean_task(self) -> float | None:
        """The step's task loss on this process; None where the trainer computed another number of losses."""
        return sum(part.item() for part in self.task) if len(self.task) == self.micros else None

    def mean_replay(self, share: int = 1) -> float:
        """The step's replay term in nats per token, each part divided by `share`."""
        return sum(part.item() / share for part in self.replay)


class Listener(Protocol):
    """Is told each reading of drift and may add to its row, in the order of the context's list."""

    def on_reading(self, row: Reading, state: Any) -> None:
        """All processes call it with the row about to be written, and the trainer's state."""
        ...


@dataclass(kw_only=True)
class KeepContext:
    """A prepared run."""

    keep: KeepConfig
    host: Host
    base: str
    """Fingerprint of the base."""
    pool: ReplayPool | None
    """None only for plain fine-tuning whose drift is read on a text."""
    train_rows: int
    """The pool's first rows, which training draws from."""
    teacher: Teacher | None
    base_head: Head
    """The base's output layer, which neither training nor sharding changes."""
    drift_rows: ReplayBatch
    """Rows on which drift is read, with the base's hidden states."""
    budget_rows: ReplayBatch | None = None
    """Held-out rows of the pool that steer λ, where drift is read on another text."""
    scale_rows: ReplayBatch | None = None
    """Rows on which the change of the weights is scaled at the end, where there is a budget."""
    certificate_rows: ReplayBatch | None = None
    """Rows that are used for nothing else than the certificate of a budget."""
    start_weights: dict[str, Tensor] = field(default_factory=dict)
    """Copies of the weights before training that a budget scales the change of, in host memory; else empty."""
    rescaled: bool = False
    """Whether the weights were scaled after the last reading."""
    lambda_: float
    """Weight of the replay term in the next step; a budget moves it."""
    require_finite: bool
    """Whether a loss or reading that is NaN or infinite ends the run."""
    starts_apart: bool = False
    """Whether an adapter makes the model differ from the base before the first step."""
    window: Window | None = None
    """The optimizer step in hand."""
    listeners: list[Listener] = field(default_factory=list)
    unchecked: list[Tensor] = field(default_factory=list)
    """The losses of this step's micro-batches, on their device: a look at each would wait for it there."""
    paused: bool = False
    """Whether the run ends before its last step to be resumed."""
    stopped: str | None = None
    """Why a forecast ended the run early."""
    forecast_note: str = ""
    """The latest forecast in words, for the progress bar."""

    @property
    def replay_rows(self) -> int:
        """Replay rows beside each task micro-batch."""
        return self.keep.replay_rows or self.host.rows

    @property
    def replay_length(self) -> int:
        """Targets of a replay row."""
        return self.keep.replay_length if self.pool is None else self.pool.settings.length

    @property
    def drift_text(self) -> str:
        """What drift is read on, as readings name it."""
        return self.keep.drift_text or (self.pool.settings.text if self.pool is not None else "")

    def check_losses(self, *, step: int) -> None:
        """Look at the losses that no one has looked at. Raises `Diverged` as `check_finite` does."""
        for loss in self.unchecked:
            self.check_finite("the loss", loss.item(), step=step)
        self.unchecked.clear()

    def check_finite(self, name: str, value: float, *, step: int) -> bool:
        """Whether a value is finite.

        Raises:
            Diverged: it is not, and the run requires it.
        """
        if math.isfinite(value):
            return True
        if self.require_finite:
            raise Diverged(
                f"{name} became {value} at step {step}",
                "lower the learning rate (or raise lambda) and resume from the last good checkpoint",
            )
        return False
