"""`keeptune plan`: a pilot, the run to make, and what to expect of it. Finished parts are skipped."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from keeptune.plan.design import replay_tokens, run_seconds
from keeptune.plan.ladder import Outcome, lengths, of, valid
from keeptune.plan.pilot import Pilot, pilot
from keeptune.plan.predict import Plan, plan_from
from keeptune.plan.report import FIGURE, RUN, command, figure, notes, run_file
from keeptune.plan.settings import PlanSettings
from keeptune.plot_style import save
from keeptune.storage import write_json, write_text
from keeptune.system import provenance
from keeptune.train.bounds import HIGHEST


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Plan a run. Writes plan.json, run.toml and a figure of the pilot, and returns the content of plan.json.

    Raises:
        ConfigError: there are too few minutes for a pilot, or no run of it stays within the budget.
        SourceError, OutputExists, StorageError, Diverged, Interrupted: see `keeptune.errors`.
    """
    finished = pilot(settings)
    chosen = _as_dict(settings, finished, plan_from(finished.done, finished.limit, settings.budget))
    result: dict[str, Any] = {**provenance(settings.seed), "settings": asdict(settings)}
    result |= {"pilot": _pilot_dict(finished), "plan": chosen}
    # The command of the plan, in the place of the one that made it.
    result |= {"command": command(settings, chosen), "notes": notes(chosen, finished, settings)}
    write_text(settings.folder / RUN, run_file(settings, chosen["steps"]))
    write_json(settings.folder / "plan.json", result)
    for suffix in ("svg", "png"):
        save(figure(result), settings.folder / f"{FIGURE}.{suffix}")
    return result


def _as_dict(settings: PlanSettings, finished: Pilot, chosen: Plan) -> dict[str, Any]:
    setting, steps, task_loss, kl = chosen
    longest = of(finished.done, setting, lengths(finished.done, setting)[-1])
    rights = [run.right_lambda(settings.budget) for run in longest]
    step = statistics.fmean(run.step_seconds for run in longest)
    return {
        **setting._asdict(),
        "steps": steps,
        "lambda": float(f"{min(statistics.geometric_mean(rights), HIGHEST):.2g}"),
        "replay_tokens": replay_tokens(settings, steps),
        "seconds": run_seconds(finished.pace, settings, steps, step),
        "task_loss": list(task_loss),
        "KL": list(kl),
        "longest_run": longest[0].cell.steps,
        "runs_of_that_length": len(longest),
        "kept": sum(not run.broken for run in of(finished.done, setting)),
        "of": len(of(finished.done, setting)),
    }


def _pilot_dict(finished: Pilot) -> dict[str, Any]:
    return {
        "runs": [_run_dict(run, counts=run in valid(finished.done)) for run in finished.done],
        "base_task_loss": float(finished.done[0].rows[0]["L_ft"]),
        "design": asdict(finished.design),
        "pace": asdict(finished.pace),
        **{name: getattr(finished, name) for name in ("pass_steps", "limit", "stop", "seconds")},
        "memory": max(run.memory for run in finished.done),
    }


def _run_dict(run: Outcome, *, counts: bool) -> dict[str, Any]:
    names = ("task_loss", "verdict", "wall", "memory")
    row = {**run.cell._asdict(), **{name: getattr(run, name) for name in names}}
    return row | {"KL": run.kl, "lambda": run.lambda_, "counts": counts, "readings": run.rows}
