"""The pilot: probe, replay pool, and the runs that `keeptune.plan.ladder` asks for. Finished runs are skipped."""

from __future__ import annotations

import math
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from keeptune.log import duration, logger
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.plan.design import Cell, Design, Pace, design, longest
from keeptune.plan.ladder import Outcome, Stop, next_cell
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.replay.generate import sample_pool
from keeptune.runs.run import MODEL, task_rows, tune_or_resume
from keeptune.runs.settings import TuneSettings
from keeptune.storage import damaged_json
from keeptune.train.budget.certificate import Verdict, read_certificate
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Steps

_DELETE = "delete it and run the same command again: its content is measured again"
_PROBE_STEPS = 3
_PROBE_ROWS = 16


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
    pace, pass_steps = _pace(settings)
    limit = longest(pace, settings, pass_steps)
    found = _once(settings, "design", lambda: asdict(design(pace, settings, most_steps=limit)))
    with damaged_json(Steps(settings.folder).file("design"), _DELETE):
        plan = Design(**{**found, "rates": tuple(found["rates"]), "ranks": tuple(found["ranks"])})
    written = _once(settings, "pool-written", lambda: _grow_pool(settings, plan))
    logger.info(f"Pilot: {duration(pace.spent + written['seconds'])} of {duration(60 * settings.minutes)} used so far")
    work = _Work(settings=settings, spent=pace.spent + written["seconds"])
    while isinstance(cell := next_cell(work.done, plan, limit, work.fits, budget=settings.budget), Cell):
        work.do(cell)
    measured: dict[str, Any] = {"pace": pace, "pass_steps": pass_steps, "seconds": work.spent}
    return Pilot(done=work.done, design=plan, limit=limit, stop=cell, **measured)


def _once(settings: PlanSettings, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return Steps(settings.folder).once(name, compute, bare=True, refuse_damaged=_DELETE)


def _pace(settings: PlanSettings) -> tuple[Pace, int]:
    """The pace of this machine and the steps in one pass over the data, measured once."""
    step = _once(settings, "pace", lambda: _probe(settings))
    with damaged_json(Steps(settings.folder).file("pace"), _DELETE):
        return Pace(**step["pace"]), int(step["pass_steps"])


def _probe(settings: PlanSettings) -> dict[str, Any]:
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
    pace = {"step": clock.step, "reading": clock.reading, "token": per_token}
    pace |= {"fixed": max(wall - clock.inside, 0.0), "spent": time.monotonic() - begin}
    return {"pace": pace, "pass_steps": max(1, len(task.train) // settings.batch_size)}


def _write_pool(settings: PlanSettings, tokens: int, model: Any, tokenizer: Any) -> None:
    select_attention(model, settings.max_length)  # as training does, so that the stored states match
    sample_pool(model, tokenizer, settings.pool, tokens=tokens, length=settings.max_length, seed=settings.seed)


def _grow_pool(settings: PlanSettings, plan: Design) -> dict[str, Any]:
    """Write the missing rows of the pool."""
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    _write_pool(settings, plan.pool_rows * settings.max_length, model, tokenizer)
    return {"seconds": time.monotonic() - begin}


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
        run = steps.once("cell", partial(self._run, cell, steps.folder, label), bare=True, refuse_damaged=_DELETE)
        with damaged_json(steps.file("cell"), _DELETE):
            rows = read_rows(steps.folder / FILE)
            last, first_step = rows[-1], rows[1]
            outcome = Outcome(
                cell=cell,
                task_loss=float(last["L_ft"]),
                kl=float(run["kl"]["value"]),
                verdict=Verdict(run["verdict"]),
                kl_of_lambda=float(run["kl"]["value"]) / float(run["scale"]) ** 2,
                lambda_=math.sqrt(float(first_step["lambda"]) * float(run["lambda"])),
                step_seconds=float(last["seconds"]) / cell.steps,
                wall=float(run["wall"]),
                memory=int(run["memory"]),
                rows=rows,
            )
        self.done.append(outcome)
        self.spent += outcome.wall
        self.since = time.monotonic()

    def _run(self, cell: Cell, home: Path, label: str) -> dict[str, Any]:
        _, memory = timed(self.settings.tune_settings(home, **cell._asdict()), label)
        certificate = read_certificate(home)
        # Only the readings and the certificate are needed.
        shutil.rmtree(home / MODEL, ignore_errors=True)
        # With what lies between the runs.
        wall = time.monotonic() - self.since
        told = {name: certificate[name] for name in ("kl", "verdict", "lambda")}
        # Near the base KL grows as the square of the change.
        return {"wall": wall, "memory": memory, "scale": certificate.get("scale", 1.0), **told}

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
