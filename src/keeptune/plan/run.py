"""`keeptune plan`: a pilot, its laws, and the run to make. Every part done before is skipped."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from keeptune.errors import ConfigError
from keeptune.laws.forecast.forecast import forecast
from keeptune.plan.choose import FARTHEST, Candidates, Reach, candidates, choose, frontier, steered
from keeptune.plan.design import ROUNDS, WEIGHTS, readings
from keeptune.plan.law import PilotLaw, misses
from keeptune.plan.picture import frontier_figure
from keeptune.plan.pilot import Pilot, loss_within, pilot
from keeptune.plan.report import RUN, command, notes, run_file
from keeptune.plan.settings import METER_ROWS, PlanSettings
from keeptune.plot_style import save
from keeptune.storage import write_json, write_text
from keeptune.system import provenance
from keeptune.train.config import CERTIFICATE_ROWS

PASSES = 3
"""The plan goes through the data at most so often: the pilot does not see what repetition does."""


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Plan a run; writes plan.json, run.toml and the frontier's pictures, and returns what plan.json holds.

    Raises:
        ConfigError: the minutes are too few for a pilot run, or nothing within reach holds the budget.
        SourceError, OutputExists, StorageError, Diverged, Interrupted: as their names say.
    """
    seen = pilot(settings)
    found: dict[str, Any] = {"settings": asdict(settings), "pilot": _pilot_dict(seen), **provenance(settings.seed)}
    runs = seen.at_rate()
    found |= {"plan": None, "frontier": [], "law": None, "misses": None}
    try:
        law = PilotLaw.fit(runs)
    except ConfigError as error:
        found["law"] = error.what
        chosen = _bracket(settings, seen)
    else:
        found |= {"law": law.as_dict(), "misses": _misses(seen)}
        within = candidates(law, _reach(settings, seen))
        found["frontier"] = [within.row(place) for place in frontier(within)]
        try:
            chosen = _chosen(settings, seen, law, within)
        except ConfigError:
            _write(settings, found)
            raise
    found["plan"] = chosen
    found["command"] = command(settings, chosen)
    found["notes"] = notes(chosen, found["pilot"], settings.budget)
    write_text(settings.folder / RUN, run_file(settings, chosen["steps"]))
    _write(settings, found)
    return found


def _write(settings: PlanSettings, found: dict[str, Any]) -> None:
    write_json(settings.folder / "plan.json", found)
    for suffix in ("svg", "png"):
        save(frontier_figure(found), settings.folder / f"frontier.{suffix}")


def _chosen(settings: PlanSettings, seen: Pilot, law: PilotLaw, within: Candidates) -> dict[str, Any]:
    place = choose(within, settings.budget, settings.hours)
    chosen = {**within.row(place), "learning_rate": seen.rate}
    if chosen["lambda"]:
        chosen["task_loss"][1:] = steered(within, place, settings.budget)
    return {**chosen, "L_f_rise": law.rise_at(tuple(chosen["KL"]))}


def _misses(seen: Pilot) -> dict[str, Any] | str:
    try:
        return misses(seen.at_rate())
    except ConfigError as error:
        return error.what


def _reach(settings: PlanSettings, seen: Pilot) -> Reach:
    runs, steps = seen.at_rate(), seen.design.steps
    middle = next(run for run in runs if run.cell.rank == settings.ranks[0])
    made = sorted({run.cell.rank for run in runs})
    ranks = [rank for rank in made if rank in (made[0], made[-1])]
    ranks += [rank for rank in (made[0] * 2**power for power in range(1, 12)) if rank < made[-1]]
    return Reach(
        ranks=sorted(set(ranks + made)),
        parameters_per_rank=middle.parameters / middle.cell.rank,
        steps=(max(1, steps // 3), _most_steps(seen)),
        weights=(min(WEIGHTS), max(WEIGHTS)),
        tokens=lambda count: -(-count // ROUNDS) * settings.batch_size * settings.max_length,
        seconds=lambda rank, count, weight: _seconds(settings, seen, rank, count, weight),
    )


def _most_steps(seen: Pilot) -> int:
    return min(FARTHEST * seen.design.steps, max(PASSES * seen.pass_steps, seen.design.steps))


def _seconds(settings: PlanSettings, seen: Pilot, rank: int, steps: int, weight: float) -> float:
    """What the planned run takes: steps, readings, loading, and its replay text, that of the certificate included."""
    pace = seen.pace
    with_replay = [run for run in seen.runs if run.cell.lambda_ > 0]
    without = [run for run in seen.runs if run.cell.lambda_ == 0]
    # Of the rank nearest to it; replay was run at one rank only, and its share of a step carries over.
    near = min(without, key=lambda run: abs(run.cell.rank - rank))
    step = near.step_seconds
    if weight and with_replay:
        middle = next(run for run in without if run.cell.rank == with_replay[0].cell.rank)
        step *= sum(run.step_seconds for run in with_replay) / len(with_replay) / middle.step_seconds
    elif weight:
        step *= pace.replay_step / pace.step
    kept = METER_ROWS * (1 + CERTIFICATE_ROWS if weight else 1) * settings.max_length
    written = -(-steps // ROUNDS) * settings.batch_size * settings.max_length if weight else 0
    taken = readings(max(20, steps // 20), steps) + (CERTIFICATE_ROWS if weight else 0)
    return pace.fixed + steps * step + taken * pace.reading + (kept + written) * pace.token


def _bracket(settings: PlanSettings, seen: Pilot) -> dict[str, Any]:
    """A plan where the pilot determines no law: the middle rank, λ left to steering, and what bounds the task loss.

    Replay slows learning, so the run without it, as it is forecast to go on, is the lower end. A run with replay is at
    least as good as one without that stops where its KL leaves the budget: the upper end.
    """
    rows, steps, rank = seen.runs[0].rows, _most_steps(seen), settings.ranks[0]
    if settings.hours is not None:
        fits = [n for n in range(1, steps + 1) if _seconds(settings, seen, rank, n, 1.0) <= 3600 * settings.hours]
        if not fits:
            raise ConfigError(f"no run fits into {settings.hours:g} hours", "give more --hours")
        steps = fits[-1]
    low = min(float(row["L_ft"]) for row in rows)
    if steps > rows[-1]["N"]:
        after = rows[1:]
        seen_at, losses = [row["N"] for row in after], [row["L_ft"] for row in after]
        low = forecast("l_ft", seen_at, losses, end=steps, base=rows[0]["L_ft"]).low
    return {
        "rank": rank,
        "steps": steps,
        "lambda": 1.0,
        "learning_rate": seen.rate,
        "replay_tokens": -(-steps // ROUNDS) * settings.batch_size * settings.max_length,
        "seconds": _seconds(settings, seen, rank, steps, 1.0),
        "task_loss": [None, min(low, loss_within(rows, settings.budget)), loss_within(rows, settings.budget)],
    }


def _pilot_dict(seen: Pilot) -> dict[str, Any]:
    return {
        "runs": [
            {
                "rank": run.cell.rank,
                "lambda": run.cell.lambda_,
                "learning_rate": run.cell.rate,
                "replay_tokens": run.tokens,
                "wall_seconds": run.wall,
                "memory": run.memory,
                "readings": run.rows,
            }
            for run in seen.runs
        ],
        "base_task_loss": float(seen.runs[0].rows[0]["L_ft"]),
        "learning_rate": seen.rate,
        "task_loss_within_budget_by_rate": seen.rate_losses,
        "design": asdict(seen.design),
        "pace": asdict(seen.pace),
        "pass_steps": seen.pass_steps,
        "memory": max(run.memory for run in seen.runs),
        "seconds": seen.seconds,
        "missing": seen.missing,
    }
