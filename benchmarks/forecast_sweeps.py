"""Every committed run with readings, as `bench_forecast.py` forecasts it.

A run that was stopped at a target loss ends, for a forecast, at its last reading at a power of two: what it was stopped
by must not choose the end. Runs that several experiments share count once, in the first of them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LAB = ROOT / "lab"
MEASURES = ("l_ft", "l_f_rise", "kl")
LEAST_STEPS = 16
# Sweeps by whether rules are chosen on them (`chosen`) or judged (`judged`). Small decoders unless the line says more.
SWEEPS = {
    "forgetting_laws/verilog": "chosen",  # SmolLM2
    "law_carries_over": "chosen",
    "method_comparison": "chosen",
    "learning_rate": "chosen",
    "pretraining_length": "chosen",
    "capacity_frontier": "chosen",
    "forecast/english-spanish": "chosen",
    "forgetting_laws/spanish": "judged",  # SmolLM2
    "instruct": "judged",  # SmolLM2
    "replay_law": "judged",
    "high_lr": "judged",
    "pool_size": "judged",
    "temperature": "judged",
    "replay_ratio": "judged",
    "model_size": "judged",
    "size_length_grid": "judged",
    "pretraining_rate": "judged",
    "forecast/pydoc-spanish": "judged",
}
_KEYS = {
    "law_carries_over": ("tuning", "P", "seed"),
    "replay_law": ("run",),
    "forgetting_laws": ("data", "run"),
    "forecast": ("pair", "case", "schedule", "steps", "seed"),
}
_WARMUP = {"forgetting_laws": 5, "instruct": 5}
_SMALL_WARMUP = 10
_INSTRUCT_STEPS = 48


class Run(NamedTuple):
    """Readings of one run, the base's first; [M] each."""

    sweep: str
    name: str
    steps: list[int]
    values: dict[str, list[float]]
    """Nats per token, by measure; measures that were not read are left out."""
    rates: list[float]
    """The learning rate of each step over the peak; [end]."""

    @property
    def end(self) -> int:
        """The step of the last reading, which is to be forecast."""
        return self.steps[-1]


def runs() -> list[Run]:
    """All runs of all sweeps, in the order of `SWEEPS`."""
    seen: set[tuple[float, ...]] = set()
    found: dict[str, list[Run]] = {sweep: [] for sweep in SWEEPS}
    for experiment in dict.fromkeys(sweep.partition("/")[0] for sweep in SWEEPS):
        path = LAB / experiment / "results.csv"
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            for run in _runs(experiment, list(csv.DictReader(file))):
                mark = tuple(run.values["l_ft"])
                if run.end >= LEAST_STEPS and mark not in seen:
                    seen.add(mark)
                    found[run.sweep].append(run)
    return [run for of_sweep in found.values() for run in of_sweep]


def _runs(experiment: str, rows: list[dict[str, str]]) -> Iterator[Run]:
    if experiment == "instruct":
        rows = [row for row in rows if row["reading"] == "training"]
        for method, of_run in groupby(rows, lambda row: row["method"]):
            steps, losses = zip(*((int(row["unit"]), float(row["loss"])) for row in of_run), strict=True)
            yield _run(experiment, method, list(steps), {"l_ft": list(losses)}, planned=_INSTRUCT_STEPS)
        return
    keys = _KEYS.get(experiment)
    if keys is None:
        yield from _small(experiment, rows)
        return
    for key, grouped in groupby(rows, lambda row: tuple(row[name] for name in keys)):
        of_run = list(grouped)
        steps = [int(row["N"]) for row in of_run]
        values = {
            "l_ft": [float(row["L_ft"]) for row in of_run],
            "l_f_rise": [float(row["L_f"]) - float(row["L_f_base"]) for row in of_run],
            "kl": [float(row["KL"]) for row in of_run],
        }
        sweep = f"{experiment}/{key[0]}" if f"{experiment}/{key[0]}" in SWEEPS else experiment
        schedule = of_run[0].get("schedule", "constant")
        yield _run(sweep, "-".join(key), steps, values, planned=steps[-1], schedule=schedule)


def _small(experiment: str, rows: list[dict[str, str]]) -> Iterator[Run]:
    """Runs of experiments whose rows begin at step 0; the first reading of the next run ends one."""
    cells = json.loads((LAB / experiment / "results.json").read_text(encoding="utf-8"))
    whole = [row for row in rows if float(row.get("share") or 1.0) == 1.0]
    starts = [place for place, row in enumerate(whole) if int(row["step"]) == 0]
    runs_of = [whole[start:stop] for start, stop in zip(starts, [*starts[1:], len(whole)], strict=True)]
    for (name, cell), of_run in zip(cells.items(), runs_of, strict=True):
        settings = cell["cell"]
        if len(of_run) < 2 or settings.get("method") == "finch":
            continue
        steps = [int(row["step"]) for row in of_run]
        values = {"l_ft": [float(row["new_loss"]) for row in of_run], "kl": [float(row["kl"]) for row in of_run]}
        yield _run(experiment, name, steps, values, planned=_planned(settings))


def _planned(cell: dict[str, Any]) -> int:
    """The steps that a cell was to run; `of_NAME` tables hold what a value of a setting brings along."""
    for key, tables in list(cell.items()):
        if key.startswith("of_"):
            cell = {**cell, **tables.get(str(cell[key.removeprefix("of_")]), {})}
    return int(cell["steps"])


def _run(
    sweep: str, name: str, steps: list[int], values: dict[str, list[float]], planned: int, schedule: str = "constant"
) -> Run:
    last = steps[-1] if steps[-1] == planned else 2 ** int(math.log2(max(steps[-1], 1)))
    kept = [place for place, step in enumerate(steps) if step <= last]
    end = steps[kept[-1]]
    cut = {measure: [of[place] for place in kept] for measure, of in values.items()}
    return Run(sweep, name, [steps[place] for place in kept], cut, rates_of(end, sweep.partition("/")[0], schedule))


def rates_of(end: int, experiment: str, schedule: str) -> list[float]:
    """The learning rate of each step over its peak, as the sweep ran."""
    warmup = _WARMUP.get(experiment, _SMALL_WARMUP)
    falls = {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
    }[schedule]
    return [min((step + 1) / warmup, falls(max(step - warmup, 0) / max(end - warmup, 1))) for step in range(end)]


def of_sweeps(found: Iterable[Run], kind: str) -> list[Run]:
    """The runs whose sweeps rules are chosen on, or judged on."""
    return [run for run in found if SWEEPS[run.sweep] == kind]
