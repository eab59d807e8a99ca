"""The pilot: short runs of one length on one replay pool, the most informative first. Finished runs are skipped."""

from __future__ import annotations

import resource
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.log import duration, logger
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.plan.design import Cell, Design, Pace, design, late
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import read_manifest
from keeptune.runs.run import MODEL, task_rows, tune_or_resume
from keeptune.runs.settings import TuneSettings
from keeptune.storage import damaged_json
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Steps

_DELETE = "delete it and run the same command again: its content is measured again"
_PROBE_STEPS = 3
_PROBE_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run of the pilot."""

    cell: Cell
    rows: list[dict[str, Any]]
    """Its readings."""
    tokens: int
    """Distinct replay tokens that it sampled from."""
    wall: float
    """Seconds from start to end."""
    memory: int
    """Peak memory in bytes: of the accelerator, or of the process so far."""

    @property
    def parameters(self) -> int:
        """Tuned parameters."""
        return int(self.rows[-1]["P"])

    @property
    def step_seconds(self) -> float:
        """Seconds per step."""
        return float(self.rows[-1]["seconds"]) / int(self.rows[-1]["N"])


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """Everything that a plan is made from."""

    runs: list[Run]
    rate: float
    """The best learning rate."""
    rate_losses: dict[str, float]
    """By rate, the lowest task loss within the budget, nats per token; one entry if no rates were compared."""
    design: Design
    pace: Pace
    pass_steps: int
    """Steps in one pass over the data."""
    missing: list[str]
    """What the pilot cannot tell, one note each."""
    seconds: float
    """How long the pilot took."""

    def at_rate(self) -> list[Run]:
        """The runs at the best rate."""
        return [run for run in self.runs if run.cell.rate == self.rate]


def pilot(settings: PlanSettings) -> Pilot:
    """Run whatever of the pilot is not done yet.

    Raises:
        OutputExists: the folder holds something else, or a pilot with other settings.
        SourceError: a file of the pilot is damaged, or the model or the data cannot be read.
        ConfigError: there are too few minutes for one run.
        Interrupted, StorageError, Diverged: see `keeptune.errors`.
    """
    settings.workspace.check(settings.identity())
    pace, pass_steps = _pace(settings)
    plan = design(pace, settings, most_steps=pass_steps)
    work = _Work(settings=settings, plan=plan, pace=pace, spent=pace.spent + _grow_pool(settings, plan))
    for cell in plan.at_rates():
        work.do(cell)
    losses = {f"{run.cell.rate:g}": loss_within(run.rows, settings.budget) for run in work.runs}
    rate = min(work.runs, key=lambda run: losses[f"{run.cell.rate:g}"]).cell.rate
    for cell in plan.at_rate(rate):
        work.do(cell)
    missing = plan.missing(settings) + [f"no time was left for the run with {cell}" for cell in work.left_out]
    measured: dict[str, Any] = {"pace": pace, "pass_steps": pass_steps, "seconds": work.spent}
    return Pilot(runs=work.runs, rate=rate, rate_losses=losses, design=plan, missing=missing, **measured)


def loss_within(rows: Sequence[dict[str, Any]], budget: float) -> float:
    """The lowest task loss along a run before its KL exceeds the budget, nats per token.

    The better of two learning rates learns more within the budget: a low rate forgets less per nat learned, and learns
    less in the same steps.
    """
    best = float(rows[0]["L_ft"])
    for before, row in pairwise(rows):
        share = min(1.0, (budget - before["KL"]) / max(row["KL"] - before["KL"], 1e-12)) if row["KL"] > budget else 1.0
        best = min(best, before["L_ft"] + share * (row["L_ft"] - before["L_ft"]))
        if share < 1.0:
            break
    return best


def _pace(settings: PlanSettings) -> tuple[Pace, int]:
    """The pace of this machine and the steps in one pass over the data, measured once."""
    steps = Steps(settings.folder)
    step = steps.once("pace", lambda: _probe(settings), bare=True, refuse_damaged=_DELETE)
    with damaged_json(steps.file("pace"), _DELETE):
        return Pace(**step["pace"]), int(step["pass_steps"])


def _probe(settings: PlanSettings) -> dict[str, Any]:
    """Load everything, write the first replay rows, and time a few steps."""
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    rank, rate, probe = settings.ranks[0], settings.rates[0], settings.folder / "probe"
    run = settings.tune_settings(probe, rank=rank, rate=rate, lambda_=1.0, steps=_PROBE_STEPS, every=0)
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
    # A replay row costs as much as a task row, and there are as many.
    pace = {"step": clock.step / 2, "replay_step": clock.step, "reading": clock.reading, "token": per_token}
    pace |= {"fixed": max(wall - clock.inside, 0.0), "spent": time.monotonic() - begin}
    return {"pace": pace, "pass_steps": max(1, len(task.train) // settings.batch_size)}


def _write_pool(settings: PlanSettings, tokens: int, model: Any, tokenizer: Any) -> None:
    select_attention(model, settings.max_length)  # as training does, so that the stored states match
    sample_pool(model, tokenizer, settings.pool, tokens=tokens, length=settings.max_length, seed=settings.seed)


def _grow_pool(settings: PlanSettings, plan: Design) -> float:
    """Write the missing rows of the pool. Returns the seconds."""
    tokens = (METER_ROWS + plan.rows * settings.batch_size) * settings.max_length
    standing = read_manifest(settings.pool)
    if standing is not None and standing.rows_written * settings.max_length >= tokens:
        return 0.0
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    _write_pool(settings, tokens, model, tokenizer)
    return time.monotonic() - begin


@dataclass(kw_only=True)
class _Work:
    """The state of the pilot while it runs."""

    settings: PlanSettings
    plan: Design
    pace: Pace
    spent: float
    """Seconds so far, summed over interrupted commands."""
    runs: list[Run] = field(default_factory=list)
    left_out: list[Cell] = field(default_factory=list)

    def do(self, cell: Cell) -> None:
        """Do one run, load it if it is done, or leave it out if there is no time left."""
        plan, place = self.plan, len(self.runs) + len(self.left_out) + 1
        home = self.settings.folder / "cells" / f"{cell.name}-steps{plan.steps}"
        steps = Steps(home)
        if not steps.file("cell").is_file():
            to_come = self._expected(cell)
            if self.runs and late(self.spent, to_come, self.settings):
                logger.info(f"Pilot run {place} of {plan.runs} left out, no time is left: {cell}")
                self.left_out.append(cell)
                return
            times = f"{duration(to_come)} of {duration(max(60 * self.settings.minutes - self.spent, 0.0))} left"
            logger.info(f"Pilot run {place} of {plan.runs}: {cell}, {plan.steps} steps, {times}")
        run = partial(self._run, cell, home, f"Pilot {place}/{plan.runs}")
        step = steps.once("cell", run, bare=True, refuse_damaged=_DELETE)
        with damaged_json(steps.file("cell"), _DELETE):
            self.runs.append(Run(cell=cell, rows=read_rows(home / FILE), **step))
        self.spent += self.runs[-1].wall

    def _run(self, cell: Cell, home: Path, label: str) -> dict[str, Any]:
        tuned = self.settings.tune_settings(home, **cell._asdict(), steps=self.plan.steps, every=self.plan.every)
        wall, memory = timed(tuned, label)
        # Only the readings are needed.
        shutil.rmtree(home / MODEL, ignore_errors=True)
        tokens = 0
        if cell.lambda_:
            standing = read_manifest(self.settings.pool)
            if standing is None:
                what = f"the replay pool {self.settings.pool} is missing"
                raise ConfigError(what, "delete the plan's folder and start again")
            tokens = standing.tokens - METER_ROWS * self.settings.max_length
        return {"wall": wall, "memory": memory, "tokens": tokens}

    def _expected(self, cell: Cell) -> float:
        """Seconds that a run will take: as the latest run of its kind, or else by the probe."""
        similar = [run.wall for run in self.runs if bool(run.cell.lambda_) == bool(cell.lambda_)]
        return similar[-1] if similar else self.plan.seconds(self.pace, cell)


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
