"""The plan as text: the command, the run file, the lines of the terminal and the caveats."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import replace
from typing import Any

import pytest

from keeptune.plan.ladder import Stop
from keeptune.plan.pilot import Pilot
from keeptune.plan.report import RUN, command, figure, lines, notes, run_file
from keeptune.plan.settings import PlanSettings
from tests.helpers.pilots import DESIGN, PACE

SETTINGS = PlanSettings(model="my model", data="verilog", budget=0.02)
CHOSEN: dict[str, Any] = {
    "rank": 16,
    "rate": 1e-3,
    "steps": 300,
    "lambda": 1.2,
    "replay_tokens": 4096,
    "seconds": 75.0,
    "task_loss": [1.83, 1.79, 1.88],
    "KL": [0.018, 0.01, 0.03],
    "longest_run": 100,
    "runs_of_that_length": 2,
    "kept": 3,
    "of": 4,
}
PILOT = Pilot(done=[], design=DESIGN, pace=PACE, pass_steps=200, limit=600, stop=Stop.TIME, seconds=1190.0)


def plan() -> dict[str, Any]:
    settings = {"model": SETTINGS.model, "data": SETTINGS.data, "budget": SETTINGS.budget, "minutes": 20.0}
    runs = [
        {"rank": rank, "rate": 1e-3, "steps": steps, "task_loss": 2.5 - steps / 100, "KL": 0.015, "counts": steps > 16}
        for rank in (16, 4)
        for steps in (16, 32, 64)
    ]
    pilot = {"runs": runs, "base_task_loss": 2.5, "memory": 2**31, "seconds": 1190.0}
    return {"settings": settings, "plan": CHOSEN, "pilot": pilot, "command": "keeptune tune", "notes": ["one"]}


def test_the_command_is_quoted_and_has_the_budget() -> None:
    words = shlex.split(command(SETTINGS, CHOSEN))
    assert words[:4] == ["keeptune", "tune", "my model", "verilog"]
    assert words[words.index("--config") + 1].endswith(RUN)
    flags = {
        name: words[words.index(f"--{name}") + 1] for name in ("lora", "steps", "learning-rate", "lambda", "budget")
    }
    assert flags == {"lora": "16", "steps": "300", "learning-rate": "0.001", "lambda": "1.2", "budget": "0.02"}


def test_the_run_file_is_toml_with_the_shared_settings() -> None:
    table = tomllib.loads(run_file(SETTINGS, steps=1000))
    assert table["drift-every"] == 250
    assert {name.replace("-", "_"): value for name, value in table.items()}.items() >= SETTINGS.shared().items()


def test_the_lines_have_every_number_with_its_interval() -> None:
    text = "\n".join(lines(plan()))
    assert "1.830 [1.790, 1.880]   (base 2.500)" in text
    assert "KL 0.0180 [0.0100, 0.0300]; 1 of 4 pilot runs at this setting broke the budget" in text
    assert "6 runs, 19m50s of 20m00s; the longest: 2 of 100 steps" in text
    assert text.endswith("note         one")


@pytest.mark.parametrize(
    ("chosen", "pilot", "said"),
    [
        ({}, {}, "3.0 times the pilot's longest run"),
        ({}, {}, "the task loss of longer runs is not known within ±0.15 nats"),
        ({"steps": 600}, {}, "at most 600 steps, by 3 passes over the data"),
        ({"steps": 50}, {}, "runs of 100 steps had a higher task loss than those of 50"),
        ({"task_loss": [1.8, 1.5, 2.1]}, {}, "known within ±0.30 nats only"),
        ({}, {"stop": Stop.MEASURED}, "ended early: the planned run has been made 4 times"),
        ({}, {"seconds": 600.0}, "ended early: no further run would have ended"),
        ({}, {"design": replace(DESIGN, ranks=(16,))}, "rank: not compared"),
        ({}, {}, "another seed holds out other documents"),
    ],
)
def test_caveats(chosen: dict[str, Any], pilot: dict[str, Any], said: str) -> None:
    assert any(said in note for note in notes({**CHOSEN, **chosen}, replace(PILOT, **pilot), SETTINGS))


def test_a_plan_that_was_measured_to_its_end_has_no_caveat_of_extrapolation() -> None:
    measured = notes({**CHOSEN, "longest_run": 600, "steps": 600}, replace(PILOT, stop=Stop.MEASURED), SETTINGS)
    assert not any("extrapolated" in note or "not known" in note for note in measured)


def test_the_figure_shows_the_runs_that_count_the_plan_and_the_budget() -> None:
    task, kl = figure(plan()).axes
    assert list(task.lines[0].get_xdata()) == [32, 64]
    assert list(kl.lines[-1].get_ydata()) == [0.02, 0.02]
    assert {"rank 16, rate 0.001", "rank 4, rate 0.001", "the plan (90 %)", "budget 0.02"} <= set(
        kl.get_legend_handles_labels()[1]
    )
