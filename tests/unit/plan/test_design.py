"""The screening that fits the time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keeptune.errors import ConfigError
from keeptune.plan.design import (
    LEAST_STEPS,
    PASSES,
    Design,
    Pace,
    design,
    longest,
    readings,
    replay_tokens,
    run_seconds,
)
from keeptune.plan.settings import METER_ROWS, PlanSettings, reading_every

# SmolLM2 on one core: 165 tokens a second, four rows of 128 tokens a step.
PACE = Pace(step=6.2, reading=6.0, fixed=25.0, token=1 / 150, spent=60.0)
SETTINGS = PlanSettings(model="smollm2", data="verilog", budget=0.02, minutes=30.0)


def found(minutes: float, most_steps: int = 6000) -> Design:
    return design(PACE, replace(SETTINGS, minutes=minutes), most_steps=most_steps)


@pytest.mark.parametrize("minutes", [20.0, 40.0, 120.0, 600.0])
def test_screening_and_pool_leave_most_of_the_minutes_to_longer_runs(minutes: float) -> None:
    plan = found(minutes)
    assert plan.steps >= LEAST_STEPS
    pool = plan.pool_rows * SETTINGS.max_length * PACE.token
    assert pool <= 0.2 * 60 * minutes
    screening = plan.runs * PACE.run(plan.steps)
    assert screening + pool + PACE.spent <= 60 * minutes
    if minutes >= 40:
        assert screening <= 0.25 * 60 * minutes


def test_more_time_compares_more_first_and_makes_longer_runs_then() -> None:
    plans = [found(minutes) for minutes in (20.0, 60.0, 120.0, 600.0)]
    assert [plan.runs for plan in plans] == sorted(plan.runs for plan in plans)
    assert (plans[0].runs, plans[-1].runs) == (2, 5)
    assert plans[-1].steps > 2 * plans[-2].steps
    assert plans[-1].missing(SETTINGS) == []


def test_what_a_small_screening_does_not_compare_is_said() -> None:
    assert [note.split(":")[0] for note in found(20.0).missing(SETTINGS)] == ["learning rate", "rank"]
    asked = replace(SETTINGS, learning_rate=3e-4, minutes=20.0)
    assert [note.split(":")[0] for note in design(PACE, asked, most_steps=6000).missing(asked)] == ["rank"]


@pytest.mark.parametrize("minutes", [1.0, 3.0, 8.0])
def test_too_little_time_is_refused_with_an_amount_that_suffices(minutes: float) -> None:
    with pytest.raises(ConfigError, match="too few for two pilot runs") as refused:
        found(minutes)
    assert found(float(refused.value.fix.split()[2])).runs == 2


@pytest.mark.parametrize("most", [1, 7, 100])
def test_no_run_is_longer_than_the_longest_that_may_be_planned(most: int) -> None:
    assert found(6000.0, most_steps=most).steps == most


def test_hours_and_passes_bound_the_plan() -> None:
    assert longest(PACE, SETTINGS, 50) == PASSES * 50
    hours = replace(SETTINGS, hours=1.0)
    steps = longest(PACE, hours, 5000)
    assert run_seconds(PACE, hours, steps, PACE.step) <= 3600 < run_seconds(PACE, hours, steps + 1, PACE.step)
    with pytest.raises(ConfigError, match=r"no run fits into 0\.01 hours"):
        longest(PACE, replace(SETTINGS, hours=0.01), 5000)


def test_the_planned_runs_certificate_has_all_its_rows() -> None:
    for steps in (1, 100, 10_000):
        rows = replay_tokens(SETTINGS, steps) // SETTINGS.max_length + METER_ROWS * 9
        run = SETTINGS.tune_settings(SETTINGS.folder, rank=4, rate=1e-3, steps=steps, order=1, start=1.0)
        assert run.certificate_rows(rows) == 8 * METER_ROWS
        assert rows >= steps * SETTINGS.batch_size / 2


@pytest.mark.parametrize("steps", [1, 3, 16, 30])
def test_readings_are_counted_as_the_meter_takes_them(steps: int) -> None:
    run = SETTINGS.tune_settings(SETTINGS.folder, rank=4, rate=1e-3, steps=steps, order=1, start=1.0)
    assert readings(steps) == sum(run.reads_after(step, steps) for step in range(1, steps)) + 1
    assert run.drift_every == reading_every(steps)
