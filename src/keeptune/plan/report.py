"""A plan on the terminal, as a run file, as a command, and its frontier as a figure."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from keeptune.log import duration
from keeptune.plan.law import FARTHEST
from keeptune.plan.settings import CONSTANT, PlanSettings
from keeptune.plot_style import BLUE, COLOURS, COLUMN, GREY, MARKS, ORANGE, style
from keeptune.stats import format_interval

RUN = "run.toml"


def run_file(settings: PlanSettings, steps: int) -> str:
    """The run file of the planned run, as TOML: the settings that pilot and plan share."""
    shared = {**settings.shared(), "drift_every": max(20, steps // 20)}
    lines = ["# Written by keeptune plan. A constant learning rate, as in the pilot: the laws describe such runs."]
    lines += [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in shared.items()]
    lines += ["", "[sft]", *(f"{name} = {json.dumps(value)}" for name, value in CONSTANT.items())]
    return "\n".join(lines) + "\n"


def command(settings: PlanSettings, chosen: dict[str, Any]) -> str:
    """The command of the planned run, quoted for a shell."""
    words = ["keeptune", "tune", settings.model, settings.data, "--out", "run"]
    words += ["--config", str(settings.folder / RUN), "--lora", str(chosen["rank"]), "--steps", str(chosen["steps"])]
    words += ["--learning-rate", f"{chosen['learning_rate']:g}", "--lambda", f"{chosen['lambda']:.2g}"]
    if chosen["lambda"]:
        words += ["--budget", f"{settings.budget:g}", "--replay-tokens", str(chosen["replay_tokens"])]
    return shlex.join(words)


def print_plan(plan: dict[str, Any]) -> None:
    """The plan on standard output."""
    sys.stdout.write("\n".join(lines(plan)) + "\n")


def lines(plan: dict[str, Any]) -> list[str]:
    """The plan in lines; intervals are of 90 %."""
    settings, chosen, pilot = plan["settings"], plan["plan"], plan["pilot"]
    rows = [
        f"Plan for {settings['model']} on {settings['data']}, KL ≤ {settings['budget']:g} nats per token",
        f"  {plan['command']}",
        f"  task loss    {_number(chosen['task_loss'])}   (base {pilot['base_task_loss']:.3f})",
    ]
    if "KL" in chosen:
        rows.append(f"  forgetting   KL {_number(chosen['KL'], 4)}, L_f {_number(chosen['L_f_rise'], 4, '+')}")
    else:
        rows.append("  forgetting   not predicted; the budget controller keeps KL within the budget")
    memory = f"{pilot['memory'] / 2**30:.1f} GiB (the pilot's peak)"
    rows.append(f"  takes        about {duration(chosen['seconds'])} on this machine, {memory}")
    line = f"  pilot        {len(pilot['runs'])} runs of {pilot['design']['steps']} steps, {duration(pilot['seconds'])}"
    if isinstance(off := plan["misses"], dict):
        miss = f"{off['L_ft']:.1%} in task loss, {off['KL']:.0%} in KL"
        line += f"; held out, {off['unseen']} was predicted within {miss}"
    return [*rows, line, *(f"  note         {note}" for note in plan["notes"])]


def notes(chosen: dict[str, Any], pilot: dict[str, Any], budget: float) -> list[str]:
    """Caveats: how far the plan extrapolates from the pilot, and what the pilot lacked."""
    caveats = []
    beyond = chosen["steps"] / pilot["design"]["steps"]
    if beyond > 1:
        caveats.append(f"extrapolated: {beyond:.1f} times the pilot's steps (never more than {FARTHEST})")
    passes = chosen["steps"] / pilot["pass_steps"]
    if passes > 1:
        caveats.append(f"{passes:.1f} passes over the data: the pilot has at most one, so watch the task loss")
    weights = [run["lambda"] for run in pilot["runs"] if run["lambda"]]
    if weights and chosen["lambda"] and not min(weights) <= chosen["lambda"] <= max(weights):
        caveats.append(f"extrapolated: λ lies outside the pilot's {min(weights):g} … {max(weights):g}")
    if chosen["lambda"] == 0.0:
        caveats.append("no replay is needed: even the upper end of the predicted KL is within the budget")
    elif "KL" in chosen and chosen["KL"][2] > budget:
        adjusts = "--budget adjusts λ, and the interval of the task loss allows for that"
        caveats.append(f"KL may exceed the budget at this λ; {adjusts}")
    if (few := len(pilot["runs"])) < 10:
        caveats.append(f"intervals (90 %) rest on {few} runs of one seed: they are wide, and do not cover other seeds")
    return caveats + pilot["missing"]


def _number(values: list[float | None], digits: int = 3, sign: str = "") -> str:
    """`1.830 [1.790, 1.880]`, or only the ends if there is no value."""
    value, low, high = values
    form = f"{sign}.{digits}f"
    if value is None:
        return f"between {low:{form}} and {high:{form}}"
    return format_interval({"value": value, "low": low, "high": high}, form)


def frontier_figure(plan: Mapping[str, Any]) -> Figure:
    """One panel of the content of `plan.json`: forgetting against task loss."""
    with style():
        figure = Figure(figsize=(COLUMN * 1.5, 3.4))
        panel = figure.subplots()
        for place, run in enumerate(plan["pilot"]["runs"]):
            rows = [row for row in run["readings"] if row["N"] > 0]
            look: dict[str, Any] = {"linestyle": ":", "linewidth": 0.8, "markersize": 2.6}
            look |= {"color": COLOURS[place % len(COLOURS)], "marker": MARKS[place % len(MARKS)]}
            label = f"pilot: rank {run['rank']}, λ {run['lambda']:g}, rate {run['learning_rate']:g}"
            panel.plot([row["L_ft"] for row in rows], [row["KL"] for row in rows], label=label, **look)
        if ahead := plan["frontier"]:
            task = [point["task_loss"][0] for point in ahead]
            kl, low, high = zip(*(point["KL"] for point in ahead), strict=True)
            panel.plot(task, kl, color=GREY, label="frontier, by the law (90 %)")
            panel.fill_between(task, low, high, color=GREY, alpha=0.18)
        chosen, budget = plan["plan"], plan["settings"]["budget"]
        panel.axhline(budget, color=ORANGE, linewidth=0.9, linestyle="--", label=f"budget {budget:g}")
        if chosen and "KL" in chosen:
            points = chosen["task_loss"], chosen["KL"]
            (x, x_error), (y, y_error) = ((value, [[value - low], [high - value]]) for value, low, high in points)
            star: dict[str, Any] = {"marker": "*", "markersize": 8, "linestyle": "none", "color": BLUE, "zorder": 4}
            panel.errorbar(x, y, xerr=x_error, yerr=y_error, label="the plan", **star)
        panel.set(xlabel="task loss (nats per token), better →", ylabel="KL(base‖tuned) (nats per token)")
        # Linear below the budget, so that 0 has a place; logarithmic above.
        panel.set_yscale("symlog", linthresh=budget)
        panel.set_ylim(bottom=0)
        panel.set_title("Forgetting against learning")
        panel.invert_xaxis()
        figure.legend(loc="outside lower center", ncols=2)
    return figure
