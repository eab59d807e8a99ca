"""A plan on the terminal, as a run file, as a command, and its pilot as a figure."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Literal

from matplotlib.figure import Figure

from keeptune.log import duration
from keeptune.plan.design import PASSES
from keeptune.plan.document import Chosen, PlanDocument
from keeptune.plan.ladder import REPEATS, Stop
from keeptune.plan.pilot import Pilot
from keeptune.plan.predict import FARTHEST, WIDEST
from keeptune.plan.settings import PlanSettings, reading_every
from keeptune.plot_style import BLUE, COLOURS, MARKS, ORANGE, PAGE, style
from keeptune.stats import format_interval

RUN = "run.toml"
FIGURE = "pilot"
_UNUSED = 0.1


def run_file(settings: PlanSettings, steps: int) -> str:
    """The run file of the planned run, as TOML: the settings that pilot and plan share."""
    shared = {**settings.shared(), "drift_every": reading_every(steps)}
    lines = ["# Written by keeptune plan: the settings of the pilot's runs."]
    lines += [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in shared.items()]
    return "\n".join(lines) + "\n"


def command(settings: PlanSettings, chosen: Chosen) -> str:
    """The command of the planned run, quoted for a shell."""
    words = ["keeptune", "tune", settings.model, settings.data, "--out", "run"]
    words += ["--config", str(settings.folder / RUN), "--lora", str(chosen["rank"]), "--steps", str(chosen["steps"])]
    words += ["--learning-rate", f"{chosen['rate']:g}", "--lambda", f"{chosen['lambda']:g}"]
    words += ["--budget", f"{settings.budget:g}", "--replay-tokens", str(chosen["replay_tokens"])]
    return shlex.join(words)


def print_plan(plan: PlanDocument) -> None:
    """The plan on standard output."""
    sys.stdout.write("\n".join(lines(plan)) + "\n")


def lines(plan: PlanDocument) -> list[str]:
    """The plan in lines; intervals are of 90 %."""
    settings, chosen, pilot = plan["settings"], plan["plan"], plan["pilot"]
    broken = f"{chosen['of'] - chosen['kept']} of {chosen['of']} pilot runs at this setting broke the budget"
    measured = f"{chosen['runs_of_that_length']} of {chosen['longest_run']} steps at this setting"
    return [
        f"Plan for {settings['model']} on {settings['data']}, KL ≤ {settings['budget']:g} nats per token",
        f"  {plan['command']}",
        f"  task loss    {_number(chosen['task_loss'])}   (base {pilot['base_task_loss']:.3f})",
        f"  forgetting   KL {_number(chosen['KL'], 4)}; {broken}",
        f"  takes        about {duration(chosen['seconds'])} on this machine, {pilot['memory'] / 2**30:.1f} GiB "
        "(the pilot's peak)",
        f"  pilot        {len(pilot['runs'])} runs, {duration(pilot['seconds'])} of "
        f"{duration(60 * settings['minutes'])}; the longest: {measured}",
        *(f"  note         {note}" for note in plan["notes"]),
    ]


def notes(chosen: Chosen, pilot: Pilot, settings: PlanSettings) -> list[str]:
    """Caveats: what limits the plan's length, how far it extrapolates, what was not compared, why the pilot ended."""
    steps, measured = chosen["steps"], chosen["longest_run"]
    caveats = []
    if steps > measured:
        caveats.append(
            f"extrapolated: {steps / measured:.1f} times the pilot's longest run (never more than {FARTHEST})"
        )
    if steps < measured:
        caveats.append(
            f"no more steps are planned: runs of {measured} steps had a higher task loss than those of {steps}"
        )
    elif steps >= pilot.limit:
        hours = "" if settings.hours is None else f"{settings.hours:g} hours, and "
        caveats.append(f"the plan has at most {pilot.limit} steps, by {hours}{PASSES} passes over the data")
    elif steps < FARTHEST * measured:
        caveats.append(f"the task loss of longer runs is not known within ±{WIDEST:g} nats; more --minutes plan them")
    half = (chosen["task_loss"][2] - chosen["task_loss"][1]) / 2
    if half > WIDEST:
        caveats.append(f"the task loss is known within ±{half:.2f} nats only; give more --minutes")
    if pilot.stop is Stop.MEASURED:
        caveats.append(f"the pilot ended early: the planned run has been made {REPEATS} times, in other data orders")
    elif pilot.seconds < 60 * settings.minutes * (1 - _UNUSED):
        caveats.append("the pilot ended early: no further run would have ended within the minutes")
    seed = f"the interval is for the held-out rows of seed {settings.seed}: another seed holds out other documents"
    return [*caveats, *pilot.design.missing(settings), seed]


def _number(values: list[float], digits: int = 3) -> str:
    """`1.830 [1.790, 1.880]`."""
    return format_interval(dict(zip(("value", "low", "high"), values, strict=True)), f".{digits}f")


def figure(plan: PlanDocument) -> Figure:
    """Two panels: task loss and certified KL of the pilot's runs by their steps, and the plan with its intervals."""
    chosen, budget = plan["plan"], plan["settings"]["budget"]
    with style():
        drawn = Figure(figsize=(PAGE, 3.0))
        panels = drawn.subplots(1, 2)
        runs = [run for run in plan["pilot"]["runs"] if run["counts"]]
        settings = list(dict.fromkeys((run["rank"], run["rate"]) for run in runs))
        names: tuple[Literal["task_loss", "KL"], ...] = ("task_loss", "KL")
        for panel, name in zip(panels, names, strict=True):
            for place, (rank, rate) in enumerate(settings):
                own = [run for run in runs if (run["rank"], run["rate"]) == (rank, rate)]
                color, marker = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
                look = {"linestyle": "none", "markersize": 3, "color": color, "marker": marker}
                points = [run["steps"] for run in own], [run[name] for run in own]
                panel.plot(*points, label=f"rank {rank}, rate {rate:g}", **look)
            value, low, high = chosen[name]
            star = {"marker": "*", "markersize": 8, "linestyle": "none", "color": BLUE, "zorder": 4}
            error = [[value - low], [high - value]]
            panel.errorbar([chosen["steps"]], [value], yerr=error, label="the plan (90 %)", **star)
            panel.set_xscale("log", base=2)
        panels[1].axhline(budget, color=ORANGE, linewidth=0.9, linestyle="--", label=f"budget {budget:g}")
        panels[0].set(xlabel="steps", ylabel="task loss (nats per token)", title="Learned within the budget")
        panels[1].set(xlabel="steps", ylabel="certified KL (nats per token)", title="Forgotten")
        panels[1].set_ylim(bottom=0)
        drawn.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn
