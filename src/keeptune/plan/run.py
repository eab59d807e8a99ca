"""`keeptune plan`: a pilot, the laws fitted to it, and the run to make. Finished parts are skipped."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from keeptune.errors import ConfigError
from keeptune.laws.forecast.forecast import forecast
from keeptune.laws.joint.record import or_reason
from keeptune.plan.design import ROUNDS, WEIGHTS, readings
from keeptune.plan.law import FARTHEST, PilotLaw, Reach, candidates, choose, controlled_interval, frontier, misses
from keeptune.plan.pilot import Pilot, loss_within, pilot
from keeptune.plan.report import RUN, command, frontier_figure, notes, run_file
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.plot_style import save
from keeptune.storage import write_json, write_text
from keeptune.system import provenance
from keeptune.train.config import CERTIFICATE_ROWS

PASSES = 3
"""Most passes over the data in a plan: the pilot cannot tell what repetition does."""


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Plan a run. Writes plan.json, run.toml and the figures of the frontier, and returns the content of plan.json.

    Raises:
        ConfigError: there are too few minutes for a pilot run, or no run within reach stays within the budget.
        SourceError, OutputExists, StorageError, Diverged, Interrupted: see `keeptune.errors`.
    """
    finished = pilot(settings)
    result: dict[str, Any] = {"settings": asdict(settings), "pilot": _pilot_dict(finished), **provenance(settings.seed)}
    result |= {"plan": None, "frontier": [], "law": None, "misses": None}
    runs = finished.at_rate()
    try:
        law = PilotLaw.fit(runs)
    except ConfigError as error:
        result["law"] = error.what
        chosen = _bracket(settings, finished)
    else:
        result |= {"law": law.as_dict(), "misses": or_reason(lambda: misses(runs))}
        within = candidates(law, _reach(settings, finished))
        result["frontier"] = [within.row(place) for place in frontier(within)]
        try:
            place = choose(within, settings.budget, settings.hours)
        except ConfigError:
            _write(settings, result)
            raise
        chosen = {**within.row(place), "learning_rate": finished.rate}
        if chosen["lambda"]:
            chosen["task_loss"][1:] = controlled_interval(within, place, settings.budget)
        chosen["L_f_rise"] = law.rise_at(tuple(chosen["KL"]))
    caveats = notes(chosen, result["pilot"], settings.budget)
    result |= {"plan": chosen, "command": command(settings, chosen), "notes": caveats}
    write_text(settings.folder / RUN, run_file(settings, chosen["steps"]))
    _write(settings, result)
    return result


def _write(settings: PlanSettings, result: dict[str, Any]) -> None:
    write_json(settings.folder / "plan.json", result)
    for suffix in ("svg", "png"):
        save(frontier_figure(result), settings.folder / f"frontier.{suffix}")


def _reach(settings: PlanSettings, finished: Pilot) -> Reach:
    runs, steps = finished.at_rate(), finished.design.steps
    middle = next(run for run in runs if run.cell.rank == settings.ranks[0])
    made = {run.cell.rank for run in runs}
    between = (min(made) * 2**power for power in range(1, 12))
    return Reach(
        ranks=sorted(made.union(rank for rank in between if rank < max(made))),
        parameters_per_rank=middle.parameters / middle.cell.rank,
        steps=(max(1, steps // 3), _most_steps(finished)),
        weights=(min(WEIGHTS), max(WEIGHTS)),
        tokens=partial(_replay_tokens, settings),
        seconds=partial(_seconds, settings, finished),
    )


def _replay_tokens(settings: PlanSettings, steps: int) -> int:
    return -(-steps // ROUNDS) * settings.batch_size * settings.max_length


def _most_steps(finished: Pilot) -> int:
    return min(FARTHEST * finished.design.steps, max(PASSES * finished.pass_steps, finished.design.steps))


def _seconds(settings: PlanSettings, finished: Pilot, rank: int, steps: int, weight: float) -> float:
    """Seconds of the planned run: steps, readings, loading, and replay text, including that of the certificate."""
    pace = finished.pace
    with_replay = [run for run in finished.runs if run.cell.lambda_ > 0]
    without = [run for run in finished.runs if run.cell.lambda_ == 0]
    # Steps of the nearest rank. Replay was run at one rank only, and its share of a step is the same at others.
    near = min(without, key=lambda run: abs(run.cell.rank - rank))
    step = near.step_seconds
    if weight and with_replay:
        middle = next(run for run in without if run.cell.rank == with_replay[0].cell.rank)
        step *= sum(run.step_seconds for run in with_replay) / len(with_replay) / middle.step_seconds
    elif weight:
        step *= pace.replay_step / pace.step
    kept = METER_ROWS * (1 + CERTIFICATE_ROWS if weight else 1) * settings.max_length
    written = _replay_tokens(settings, steps) if weight else 0
    taken = readings(max(20, steps // 20), steps) + (CERTIFICATE_ROWS if weight else 0)
    return pace.fixed + steps * step + taken * pace.reading + (kept + written) * pace.token


def _bracket(settings: PlanSettings, finished: Pilot) -> dict[str, Any]:
    """A plan if the pilot determines no law: the middle rank, λ left to the controller, and bounds of the task loss.

    Replay slows learning, so the forecast of the run without replay is the lower end. A run with replay is at least as
    good as a run without replay that stops where its KL exceeds the budget: the upper end.
    """
    rows, steps, rank = finished.runs[0].rows, _most_steps(finished), settings.ranks[0]
    if settings.hours is not None:
        fits = [n for n in range(1, steps + 1) if _seconds(settings, finished, rank, n, 1.0) <= 3600 * settings.hours]
        if not fits:
            raise ConfigError(f"no run fits into {settings.hours:g} hours", "give more --hours")
        steps = fits[-1]
    low, high = min(float(row["L_ft"]) for row in rows), loss_within(rows, settings.budget)
    if steps > rows[-1]["N"]:
        after = rows[1:]
        steps_read, losses = [row["N"] for row in after], [row["L_ft"] for row in after]
        low = forecast("l_ft", steps_read, losses, end=steps, base=rows[0]["L_ft"]).low
    chosen = {"rank": rank, "steps": steps, "lambda": 1.0, "learning_rate": finished.rate}
    cost = {"replay_tokens": _replay_tokens(settings, steps), "seconds": _seconds(settings, finished, rank, steps, 1.0)}
    return {**chosen, **cost, "task_loss": [None, min(low, high), high]}


def _pilot_dict(finished: Pilot) -> dict[str, Any]:
    names = ("rank", "learning_rate", "lambda", "replay_tokens", "wall_seconds", "memory", "readings")
    runs = [(*run.cell, run.tokens, run.wall, run.memory, run.rows) for run in finished.runs]
    return {
        "runs": [dict(zip(names, run, strict=True)) for run in runs],
        "base_task_loss": float(finished.runs[0].rows[0]["L_ft"]),
        "learning_rate": finished.rate,
        "task_loss_within_budget_by_rate": finished.rate_losses,
        "design": asdict(finished.design),
        "pace": asdict(finished.pace),
        **{name: getattr(finished, name) for name in ("pass_steps", "seconds", "missing")},
        "memory": max(run.memory for run in finished.runs),
    }
