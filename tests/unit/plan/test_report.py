"""The plan as text: the command, the run file, the lines of the terminal and the caveats."""

from __future__ import annotations

import shlex
import tomllib
from typing import Any

import pytest

from keeptune.plan.report import RUN, command, frontier_figure, lines, notes, run_file
from keeptune.plan.settings import CONSTANT, PlanSettings

SETTINGS = PlanSettings(model="my model", data="verilog", budget=0.02)
CHOSEN: dict[str, Any] = {
    "rank": 16,
    "steps": 300,
    "lambda": 1.234,
    "replay_tokens": 4096,
    "learning_rate": 1e-3,
    "seconds": 75.0,
    "task_loss": [1.83, 1.79, 1.88],
    "KL": [0.018, 0.01, 0.03],
    "L_f_rise": [0.02, -0.001, 0.04],
}
PILOT: dict[str, Any] = {
    "runs": [{"lambda": weight} for weight in (0.0, 0.5, 5.0)],
    "design": {"steps": 100},
    "pass_steps": 200,
    "missing": ["rank: not compared, 16 is the middle rank"],
    "base_task_loss": 2.5,
    "memory": 2**31,
    "seconds": 130.0,
}


def plan(chosen: dict[str, Any], misses: Any) -> dict[str, Any]:
    settings = {"model": SETTINGS.model, "data": SETTINGS.data, "budget": SETTINGS.budget}
    return {
        "settings": settings,
        "plan": chosen,
        "pilot": PILOT,
        "command": "keeptune tune",
        "misses": misses,
        "notes": ["one"],
    }


def test_the_command_is_quoted_and_has_the_budget_only_with_replay() -> None:
    words = shlex.split(command(SETTINGS, CHOSEN))
    assert words[:4] == ["keeptune", "tune", "my model", "verilog"]
    assert words[words.index("--config") + 1].endswith(RUN)
    assert words[words.index("--lambda") + 1] == "1.2"
    assert words[words.index("--budget") + 1] == "0.02"
    assert "--budget" not in command(SETTINGS, {**CHOSEN, "lambda": 0.0})


def test_the_run_file_is_toml_with_the_shared_settings() -> None:
    table = tomllib.loads(run_file(SETTINGS, steps=1000))
    assert table["sft"] == CONSTANT
    assert table["drift-every"] == 50
    assert {name.replace("-", "_"): value for name, value in table.items()}.items() >= SETTINGS.shared().items()


def test_the_lines_have_every_number_with_its_interval() -> None:
    text = "\n".join(lines(plan(CHOSEN, {"unseen": "the end of every run", "L_ft": 0.01, "KL": 0.2})))
    assert "1.830 [1.790, 1.880]   (base 2.500)" in text
    assert "KL 0.0180 [0.0100, 0.0300], L_f +0.0200 [-0.0010, +0.0400]" in text
    assert "the end of every run was predicted within 1.0% in task loss, 20% in KL" in text
    assert text.endswith("note         one")
    bounds = {**{key: CHOSEN[key] for key in CHOSEN if key not in ("KL", "L_f_rise")}, "task_loss": [None, 1.7, 1.9]}
    text = "\n".join(lines(plan(bounds, "no law")))
    assert "between 1.700 and 1.900" in text
    assert "forgetting   not predicted" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "3.0 times the pilot's steps"),
        ({}, "1.5 passes over the data"),
        ({}, "KL may exceed the budget"),
        ({"lambda": 50.0}, "λ lies outside the pilot's 0.5 … 5"),
        ({"lambda": 0.0}, "no replay is needed"),
        ({}, "3 runs of one seed"),
        ({}, "rank: not compared"),
    ],
)
def test_caveats(changed: dict[str, Any], said: str) -> None:
    assert any(said in note for note in notes({**CHOSEN, **changed}, PILOT, 0.02))


def test_a_plan_within_the_pilot_has_no_caveat_of_extrapolation() -> None:
    within = {**CHOSEN, "steps": 100, "KL": [0.01, 0.005, 0.015]}
    assert not any("extrapolated" in note or "exceed" in note for note in notes(within, PILOT, 0.02))


def drawn(chosen: dict[str, Any] | None) -> dict[str, Any]:
    readings = [{"N": N, "L_ft": 3.0 - 0.1 * N, "KL": 0.01 * N} for N in (0, 2, 4)]
    points = [{"KL": [kl, 0.8 * kl, 1.2 * kl], "task_loss": [2.8 - kl, 2.7 - kl, 2.9 - kl]} for kl in (0.01, 0.05)]
    return {
        "pilot": {"runs": [{"rank": 4, "lambda": 0.5, "learning_rate": 1e-3, "readings": readings}]},
        "frontier": points,
        "plan": chosen,
        "settings": {"budget": 0.02},
    }


def test_it_shows_runs_frontier_budget_and_plan() -> None:
    chosen = {"task_loss": [2.75, 2.7, 2.8], "KL": [0.018, 0.01, 0.03]}
    (panel,) = frontier_figure(drawn(chosen)).axes
    run, frontier, budget = panel.lines[:3]
    assert list(run.get_xdata()) == [2.8, 2.6], "step 0 is the base"
    assert list(frontier.get_ydata()) == [0.01, 0.05]
    assert list(budget.get_ydata()) == [0.02, 0.02]
    assert "the plan" in panel.get_legend_handles_labels()[1]
    assert panel.xaxis_inverted()


@pytest.mark.parametrize("chosen", [None, {"task_loss": [None, 1.0, 2.0]}])
def test_without_a_plan_or_its_kl_no_point_is_drawn(chosen: dict[str, Any] | None) -> None:
    (panel,) = frontier_figure({**drawn(chosen), "frontier": []}).axes
    assert "the plan" not in panel.get_legend_handles_labels()[1]
    assert len(panel.lines) == 2
