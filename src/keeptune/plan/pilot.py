"""The pilot: probe, replay pool, and the runs that `keeptune.plan.ladder` asks for. Finished runs are skipped."""

from __future__ import annotations

import math
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from transformers import TrainerCallback

from keeptune.cluster import anywhere, here
from keeptune.codec import from_json, to_json
from keeptune.errors import SourceError
from keeptune.log import duration, logger
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.plan.design import Cell, Design, Pace, design, longest
from keeptune.plan.ladder import Outcome, Stop, next_cell
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.replay.generate import sample_pool
from keeptune.runs.run import MODEL, tune_or_resume
from keeptune.runs.settings import TuneSettings
from keeptune.runs.task_rows import task_rows
from keeptune.stats import Interval
from keeptune.storage import changed_files, damaged_json, sha256_file
from keeptune.train.budget.certificate import Verdict, read_certificate
from keeptune.train.readings import FILE, measured_loss, read_rows
from keeptune.workspace import Steps

_DELETE = "delete it and run the same command again: its content is measured again"
_PROBE_STEPS = 3
_PROBE_ROWS = 16
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, kw_only=True)
class _Probed:
    """The pace of this machine, and the steps in one pass over the data."""

    pace: Pace
    pass_steps: int


@dataclass(frozen=True, kw_only=True)
class _Written:
    """How long the pool took."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A run of the pilot: its certificate, seconds and memory, and the checksum of its readings."""

    wall: float
    memory: int
    scale: float
    kl: Interval
    verdict: Verdict
    lambda_: Annotated[float, Field(alias="lambda")]
    readings: str = ""  # earlier versions wrote none


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """Everything that a plan is made from."""

    done: list[Outcome]
    design: Design
    pace: Pace
    pass_steps: int
    """Steps in one pass over the data."""
    limit: int
    """Steps of the longest run that may be planned."""
    stop: Stop
    """Why the pilot made no more runs."""
    seconds: float
    """How long the pilot took, summed over interrupted commands."""


def pilot(settings: PlanSettings) -> Pilot:
    """Run whatever of the pilot is not done yet and fits into the minutes.

    Raises:
        OutputExists: the folder holds something else, or a pilot with other settings.
        SourceError: a file of the pilot is damaged, or the model or the data cannot be read.
        ConfigError: there are too few minutes for two runs, or too few hours for any.
        Interrupted, StorageError, Diverged: see `keeptune.errors`.
    """
    settings.workspace.check(settings.identity())
    steps, at = Steps(settings.folder), _place(settings)
    probed = _once(steps, "pace", _Probed, lambda: at(_probe, settings))
    pace = probed.pace
    limit = longest(pace, settings, probed.pass_steps)
    plan = _once(steps, "design", Design, lambda: design(pace, settings, most_steps=limit))
    spent = pace.spent + _once(steps, "pool-written", _Written, lambda: at(_grow_pool, settings, plan)).seconds
    logger.info(f"Pilot: {duration(spent)} of {duration(60 * settings.minutes)} used so far")
    work = _Work(settings=settings, spent=spent)
    while isinstance(cell := next_cell(work.done, plan, limit, work.fits, budget=settings.budget), Cell):
        work.do(cell)
    return Pilot(
        done=work.done,
        design=plan,
        pace=pace,
        pass_steps=probed.pass_steps,
        limit=limit,
        stop=cell,
        seconds=work.spent,
    )


def _place(settings: PlanSettings) -> Callable[..., Any]:
    """What calls a function that loads the base: here, or somewhere on Ray."""
    return anywhere if settings.ray else here


def _once(steps: Steps, name: str, kind: type[_Kind], compute: Callable[[], _Kind]) -> _Kind:
    """A finished step, which is never measured again unasked."""
    content = steps.once(name, lambda: to_json(compute(), kind), bare=True, refuse_damaged=_DELETE)
    with damaged_json(steps.file(name), _DELETE):
        return from_json(kind, content)


def _probe(settings: PlanSettings) -> _Probed:
    """Load everything, write the first replay rows, and time a few steps."""
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    rank, rate, probe = settings.ranks[0], settings.rates[0], settings.folder / "probe"
    run = settings.tune_settings(probe, rank=rank, rate=rate, steps=_PROBE_STEPS, order=1, start=1.0)
    run = replace(run, drift_every=0)
    task = task_rows(run, tokenizer)
    check_sizes(model, tokenizer, task.longest(run), "task rows")
    check_length(model, settings.max_length, "replay rows")
    settings.workspace.claim(settings.identity())
    # What an interrupted probe left would not be timed.
    for left in (settings.pool, probe):
        shutil.rmtree(left, ignore_errors=True)
    logger.info("Pilot: measuring the speed of this machine (the first replay rows, then a few steps)")
    began = time.monotonic()
    tokens = (METER_ROWS + _PROBE_ROWS) * settings.max_length
    _write_pool(settings, tokens, model, tokenizer)
    per_token = (time.monotonic() - began) / tokens
    del model
    clock = Clock()
    wall, _ = timed(run, "Probe", clock)
    shutil.rmtree(probe / MODEL, ignore_errors=True)
    pace = Pace(
        step=clock.step,
        reading=clock.reading,
        fixed=max(wall - clock.inside, 0.0),
        token=per_token,
        spent=time.monotonic() - begin,
    )
    return _Probed(pace=pace, pass_steps=max(1, len(task.train) // settings.batch_size))


def _write_pool(settings: PlanSettings, tokens: int, model: Any, tokenizer: Any) -> None:
    select_attention(model, settings.max_length)  # as training does, so that the stored states match
    sample_pool(model, tokenizer, settings.pool, tokens=tokens, length=settings.max_length, seed=settings.seed)


def _grow_pool(settings: PlanSettings, plan: Design) -> _Written:
    """Write the missing rows of the pool."""
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    _write_pool(settings, plan.pool_rows * settings.max_length, model, tokenizer)
    return _Written(seconds=time.monotonic() - begin)


@dataclass(kw_only=True)
class _Work:
    """The state of the pilot while it runs."""

    settings: PlanSettings
    spent: float
    """Seconds so far, summed over interrupted commands."""
    done: list[Outcome] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    """When the run before ended."""

    @property
    def left(self) -> float:
        """Seconds left of the minutes."""
        return max(60 * self.settings.minutes - self.spent, 0.0)

    def fits(self, cell: Cell) -> bool:
        """Whether the run is done, or will end within the minutes."""
        return self._steps(cell).file("cell").is_file() or self._expected(cell) <= self.left

    def do(self, cell: Cell) -> None:
        """Do one run, or load it if it is done."""
        steps, label = self._steps(cell), f"Pilot run {len(self.done) + 1}"
        if not steps.file("cell").is_file():
            to_come = f"about {duration(self._expected(cell))} of {duration(self.left)} left" if self.done else "first"
            logger.info(f"{label}: {cell}; {to_come}")
        run = _once(steps, "cell", _Ended, partial(self._run, cell, steps.folder, label))
        with damaged_json(steps.file("cell"), _DELETE):
            if run.readings and changed_files(steps.folder, {FILE: run.readings}):
                again = f"delete {steps.folder} and run the same command again: that run is made again"
                raise SourceError(f"{steps.folder / FILE} is damaged: it is not as it was written", again)
            rows = read_rows(steps.folder / FILE)
            last, first_step = rows[-1], rows[1]
            outcome = Outcome(
                cell=cell,
                task_loss=measured_loss(last),
                kl=run.kl.value,
                verdict=run.verdict,
                # Near the base KL grows as the square of the change.
                kl_of_lambda=run.kl.value / run.scale**2,
                lambda_=math.sqrt(first_step["lambda"] * run.lambda_),
                step_seconds=last["seconds"] / cell.steps,
                wall=run.wall,
                memory=run.memory,
                rows=rows,
            )
        self.done.append(outcome)
        self.spent += outcome.wall
        self.since = time.monotonic()

    def _run(self, cell: Cell, home: Path, label: str) -> _Ended:
        run = self.settings.tune_settings(home, **cell._asdict())
        _, memory = _place(self.settings)(timed, run, label)
        certificate = read_certificate(home)
        # Only the readings and the certificate are needed.
        shutil.rmtree(home / MODEL, ignore_errors=True)
        # With what lies between the runs.
        wall = time.monotonic() - self.since
        return _Ended(
            wall=wall,
            memory=memory,
            scale=certificate.scale,
            kl=certificate.kl,
            verdict=certificate.verdict,
            lambda_=certificate.lambda_,
            readings=sha256_file(home / FILE),
        )

    def _steps(self, cell: Cell) -> Steps:
        return Steps(self.settings.folder / "cells" / cell.name(self.settings.budget))

    def _expected(self, cell: Cell) -> float:
        """Seconds that a run will take, by the latest run."""
        return self.done[-1].seconds(cell.steps) if self.done else 0.0


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
        # The first reading lies before it.
        self._begin = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ended = time.monotonic()
        self._steps.append(self._ended - self._step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The last reading lies between the last step and this.
        now = time.monotonic()
        self.reading, self.inside = now - self._ended, now - self._begin
