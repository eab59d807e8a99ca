"""The pilot: short runs of one length on one replay pool, in the order of what they tell. Finished ones are skipped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from keeptune.errors import ConfigError, OutputExists
from keeptune.log import duration, logger
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.plan.design import Cell, Design, Pace, design, late
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.plan.timing import Clock, timed
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import read_manifest
from keeptune.runs.run import MODEL, RUN_FILE, task_rows
from keeptune.storage import damaged_json, read_json, write_json
from keeptune.train.readings import FILE, read_rows

_PILOT, _PACE, _CELL = "pilot.json", "pace.json", "cell.json"
_DELETE = "delete it and run the same command again: what it says is measured anew"
_PROBE_STEPS = 3
_PROBE_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run of the pilot."""

    cell: Cell
    rows: list[dict[str, Any]]
    """Its readings."""
    tokens: int
    """Distinct replay tokens that it drew from."""
    wall: float
    """Seconds from start to end."""
    memory: int
    """Bytes at its peak: of the accelerator, or of the process so far."""

    @property
    def parameters(self) -> int:
        """Tuned parameters."""
        found: int = self.rows[-1]["P"]
        return found

    @property
    def step_seconds(self) -> float:
        """Seconds a step."""
        return float(self.rows[-1]["seconds"]) / int(self.rows[-1]["N"])


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """All that a plan is made from."""

    runs: list[Run]
    rate: float
    """The learning rate that won."""
    rate_losses: dict[str, float]
    """By rate, the lowest task loss within the budget, nats per token; one entry where none was compared."""
    design: Design
    pace: Pace
    pass_steps: int
    """Steps in one pass over the data."""
    missing: list[str]
    """What it cannot tell, in words."""
    seconds: float
    """What it took."""

    def at_rate(self) -> list[Run]:
        """The runs at the rate that won."""
        return [run for run in self.runs if run.cell.rate == self.rate]


def pilot(settings: PlanSettings) -> Pilot:
    """Run whatever of the pilot is not done yet.

    Raises:
        OutputExists: the folder holds something else, or the pilot of other settings.
        SourceError: a file that the pilot has kept is damaged, or there is no such model or data.
        ConfigError: the minutes are too few for one run.
        Interrupted, StorageError, Diverged: as their names say.
    """
    check(settings)
    pace, pass_steps = _known(settings) or _probed(settings)
    plan = design(pace, settings, most_steps=pass_steps)
    work = _Work(settings=settings, plan=plan, pace=pace, spent=pace.spent + _grow_pool(settings, plan))
    for cell in plan.at_rates():
        work.do(cell)
    losses = {f"{run.cell.rate:g}": loss_within(run.rows, settings.budget) for run in work.runs}
    rate = min(work.runs, key=lambda run: losses[f"{run.cell.rate:g}"]).cell.rate
    for cell in plan.at_rate(rate):
        work.do(cell)
    return Pilot(
        runs=work.runs,
        rate=rate,
        rate_losses=losses,
        design=plan,
        pace=pace,
        pass_steps=pass_steps,
        missing=plan.missing(settings) + [f"no time was left for the run with {cell}" for cell in work.left_out],
        seconds=work.spent,
    )


def check(settings: PlanSettings) -> None:
    """Refuse a folder that holds something else. Changes nothing.

    Raises:
        OutputExists: it does.
        SourceError: what says which pilot it holds is damaged.
    """
    folder, mark = settings.folder, settings.folder / _PILOT
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file", "choose another --out")
    if mark.is_file():
        if read_json(mark, f"delete {folder}, or choose another --out") != settings.identity():
            raise OutputExists(f"{folder} holds a pilot of other settings", "choose another --out, or delete it")
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputExists(f"{folder} is not empty and holds no plan", "choose another --out")


def loss_within(rows: Sequence[dict[str, Any]], budget: float) -> float:
    """The lowest task loss along a run before its KL leaves the budget, nats per token.

    Of two learning rates the better one is that which learns more within the budget: a low rate forgets less for what
    it learns, and learns less in the same steps.
    """
    best = float(rows[0]["L_ft"])
    for before, row in pairwise(rows):
        share = min(1.0, (budget - before["KL"]) / max(row["KL"] - before["KL"], 1e-12)) if row["KL"] > budget else 1.0
        best = min(best, before["L_ft"] + share * (row["L_ft"] - before["L_ft"]))
        if share < 1.0:
            break
    return best


def _known(settings: PlanSettings) -> tuple[Pace, int] | None:
    file = settings.folder / _PACE
    if not file.is_file():
        return None
    with damaged_json(file, _DELETE):
        found = read_json(file, _DELETE)
        return Pace(**found["pace"]), int(found["pass_steps"])


def _probed(settings: PlanSettings) -> tuple[Pace, int]:
    """Load everything, write the first replay rows, and take a few steps with a clock."""
    begin = time.monotonic()
    model, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
    rank, rate, probe = settings.ranks[0], settings.rates[0], settings.folder / "probe"
    run = settings.tune_settings(probe, rank=rank, rate=rate, lambda_=1.0, steps=_PROBE_STEPS, every=0)
    train_rows, _ = task_rows(run, tokenizer)
    write_json(settings.folder / _PILOT, settings.identity())
    # What a probe that was stopped has left would not be timed.
    for left in (settings.pool, probe):
        shutil.rmtree(left, ignore_errors=True)
    logger.info("Pilot: the base writes its first replay text, then a few steps tell how fast this machine is")
    began = time.monotonic()
    tokens = (METER_ROWS + _PROBE_ROWS) * settings.max_length
    _write_pool(settings, tokens, model, tokenizer)
    per_token = (time.monotonic() - began) / tokens
    del model
    clock = Clock()
    wall, _ = timed(run, "Probe", clock)
    shutil.rmtree(probe / MODEL, ignore_errors=True)
    replay_step = clock.step
    pace = Pace(
        # A replay row costs what a task row costs, and there are as many.
        step=replay_step / 2,
        replay_step=replay_step,
        reading=clock.reading,
        fixed=max(wall - clock.inside, 0.0),
        token=per_token,
        spent=time.monotonic() - begin,
    )
    pass_steps = max(1, len(train_rows) // settings.batch_size)
    write_json(settings.folder / _PACE, {"pace": asdict(pace), "pass_steps": pass_steps})
    return pace, pass_steps


def _write_pool(settings: PlanSettings, tokens: int, model: Any, tokenizer: Any) -> None:
    select_attention(model, settings.max_length)  # as training does: stored states match
    sample_pool(model, tokenizer, settings.pool, tokens=tokens, length=settings.max_length, seed=settings.seed)


def _grow_pool(settings: PlanSettings, plan: Design) -> float:
    """Write what the pool lacks; returns the seconds."""
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
    """The pilot under way."""

    settings: PlanSettings
    plan: Design
    pace: Pace
    spent: float
    """Seconds so far, over interrupted commands."""
    runs: list[Run] = field(default_factory=list)
    left_out: list[Cell] = field(default_factory=list)

    def do(self, cell: Cell) -> None:
        """Do one run, or find it done, or leave it out because the time is over."""
        plan, place = self.plan, len(self.runs) + len(self.left_out) + 1
        home = self.settings.folder / "cells" / f"{cell.name}-steps{plan.steps}"
        if not (home / _CELL).is_file():
            to_come = self._expected(cell)
            if self.runs and late(self.spent, to_come, self.settings):
                logger.info(f"Pilot run {place} of {plan.runs} left out, the time is over: {cell}")
                self.left_out.append(cell)
                return
            left = duration(max(60 * self.settings.minutes - self.spent, 0.0))
            logger.info(
                f"Pilot run {place} of {plan.runs}: {cell}, {plan.steps} steps, {duration(to_come)} of {left} left"
            )
            self._run(cell, home, f"Pilot {place}/{plan.runs}")
        with damaged_json(home / _CELL, _DELETE):
            kept = read_json(home / _CELL, _DELETE)
            self.runs.append(Run(cell=cell, rows=read_rows(home / FILE), **kept))
        self.spent += self.runs[-1].wall

    def _run(self, cell: Cell, home: Path, label: str) -> None:
        tuned = self.settings.tune_settings(
            home,
            rank=cell.rank,
            rate=cell.rate,
            lambda_=cell.lambda_,
            steps=self.plan.steps,
            every=self.plan.every,
        )
        if not (home / RUN_FILE).is_file():
            # A kill can leave the folder without it, and tuning would take that for someone else's.
            shutil.rmtree(home, ignore_errors=True)
        wall, memory = timed(tuned, label)
        # Only its readings matter.
        shutil.rmtree(home / MODEL, ignore_errors=True)
        tokens = _train_tokens(self.settings) if cell.lambda_ else 0
        write_json(home / _CELL, {"wall": wall, "memory": memory, "tokens": tokens})

    def _expected(self, cell: Cell) -> float:
        """Seconds of a run: as the latest of its kind took, or else by the probe."""
        alike = [run.wall for run in self.runs if bool(run.cell.lambda_) == bool(cell.lambda_)]
        return alike[-1] if alike else self.plan.seconds(self.pace, cell)


def _train_tokens(settings: PlanSettings) -> int:
    standing = read_manifest(settings.pool)
    if standing is None:
        raise ConfigError(f"the replay pool {settings.pool} is gone", "delete the plan's folder and start again")
    return standing.tokens - METER_ROWS * settings.max_length
