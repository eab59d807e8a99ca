"""`keeptune plan`: a pilot, the run to make, and what to expect of it. Finished parts are skipped."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import cast

from keeptune.plan.design import replay_tokens, run_seconds
from keeptune.plan.document import Asked, Chosen, PilotRecord, PilotRun, PlanDocument
from keeptune.plan.ladder import Outcome, lengths, of, valid
from keeptune.plan.pilot import Pilot, pilot
from keeptune.plan.predict import Plan, plan_from
from keeptune.plan.report import FIGURE, RUN, command, figure, notes, run_file
from keeptune.plan.settings import PlanSettings
from keeptune.plot_style import save
from keeptune.storage import write_json, write_text
from keeptune.system import provenance
from keeptune.train.bounds import HIGHEST
from keeptune.train.readings import measured_loss


def plan(settings: PlanSettings) -> PlanDocument:
    """Plan a run. Writes plan.json, run.toml and a figure of the pilot, and returns the content of plan.json.

    Raises:
        ConfigError: there are too few minutes for a pilot, or no run of it stays within the budget.
        SourceError, OutputExists, StorageError, Diverged, Interrupted: see `keeptune.errors`.
    """
    finished = pilot(settings)
    chosen = _chosen(settings, finished, plan_from(finished.done, finished.limit, settings.budget))
    result: PlanDocument = {
        **provenance(settings.seed),
        "settings": cast(Asked, asdict(settings)),
        "pilot": _pilot_record(finished),
        "plan": chosen,
        "notes": notes(chosen, finished, settings),
    }
    # In the place of the command that made the plan.
    result["command"] = command(settings, chosen)
    write_text(settings.folder / RUN, run_file(settings, chosen["steps"]))
    write_json(settings.folder / "plan.json", result)
    for suffix in ("svg", "png"):
        save(figure(result), settings.folder / f"{FIGURE}.{suffix}")
    return result


def _chosen(settings: PlanSettings, finished: Pilot, chosen: Plan) -> Chosen:
    setting, steps, task_loss, kl = chosen
    longest = of(finished.done, setting, lengths(finished.done, setting)[-1])
    rights = [run.right_lambda(settings.budget) for run in longest]
    step = statistics.fmean(run.step_seconds for run in longest)
    return {
        "rank": setting.rank,
        "rate": setting.rate,
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


def _pilot_record(finished: Pilot) -> PilotRecord:
    return {
        "runs": [_pilot_run(run, counts=run in valid(finished.done)) for run in finished.done],
        "base_task_loss": measured_loss(finished.done[0].rows[0]),
        "design": asdict(finished.design),
        "pace": asdict(finished.pace),
        "pass_steps": finished.pass_steps,
        "limit": finished.limit,
        "stop": finished.stop,
        "seconds": finished.seconds,
        "memory": max(run.memory for run in finished.done),
    }


def _pilot_run(run: Outcome, *, counts: bool) -> PilotRun:
    return {
        "rank": run.cell.rank,
        "rate": run.cell.rate,
        "steps": run.cell.steps,
        "order": run.cell.order,
        "start": run.cell.start,
        "task_loss": run.task_loss,
        "verdict": run.verdict,
        "wall": run.wall,
        "memory": run.memory,
        "KL": run.kl,
        "lambda": run.lambda_,
        "counts": counts,
        "readings": run.rows,
    }
