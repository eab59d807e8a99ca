"""The pilot that fits the time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keeptune.errors import ConfigError
from keeptune.plan.design import LEAST_STEPS, WEIGHTS, Pace, design, late, readings
from keeptune.plan.settings import PlanSettings

# SmolLM2 on one core: 165 tokens a second, four rows of 128 tokens a step.
PACE = Pace(step=3.1, replay_step=6.2, reading=6.0, fixed=25.0, token=1 / 150, spent=60.0)
SETTINGS = PlanSettings(model="smollm2", data="verilog", budget=0.02, minutes=15.0)


def total(minutes: float) -> tuple[int, int, float]:
    found = design(PACE, replace(SETTINGS, minutes=minutes), most_steps=6000)
    return found.steps, found.runs, found.total(PACE, SETTINGS) + PACE.spent


@pytest.mark.parametrize("minutes", [4.0, 8.0, 15.0, 30.0, 120.0])
def test_a_pilot_ends_in_time_and_uses_it(minutes: float) -> None:
    steps, _, seconds = total(minutes)
    assert steps >= LEAST_STEPS
    assert seconds <= 0.951 * 60 * minutes
    if minutes >= 15:
        assert seconds >= 0.85 * 60 * minutes


def test_more_time_gives_a_fuller_pilot_first_and_longer_runs_then() -> None:
    runs = [total(minutes)[1] for minutes in (4.0, 15.0, 22.0, 120.0)]
    assert runs == sorted(runs)
    assert (runs[0], runs[-1]) == (1, 6)
    assert total(240.0)[0] > total(120.0)[0]
    full = design(PACE, replace(SETTINGS, minutes=120.0), most_steps=6000)
    assert full.missing(SETTINGS) == []
    assert [cell.lambda_ for cell in full.at_rate(1e-3)] == [*WEIGHTS, 0.0, 0.0]


def test_what_a_small_pilot_cannot_tell_is_said() -> None:
    least = design(PACE, replace(SETTINGS, minutes=4.0), most_steps=6000)
    assert [note.split(":")[0] for note in least.missing(SETTINGS)] == ["learning rate", "rank", "λ"]
    asked = replace(SETTINGS, learning_rate=3e-4, minutes=4.0)
    assert [note.split(":")[0] for note in design(PACE, asked, most_steps=6000).missing(asked)] == ["rank", "λ"]


def test_too_little_time_is_refused_with_an_amount_that_suffices() -> None:
    with pytest.raises(ConfigError, match="too few for one pilot run") as refused:
        design(PACE, replace(SETTINGS, minutes=1.0), most_steps=6000)
    enough = float(refused.value.fix.split()[2])
    assert design(PACE, replace(SETTINGS, minutes=enough), most_steps=6000).runs == 1


def test_a_pilot_stays_within_one_pass() -> None:
    assert design(PACE, replace(SETTINGS, minutes=600.0), most_steps=100).steps == 100


def test_readings_are_counted_as_the_meter_takes_them() -> None:
    assert readings(every=10, steps=30) == len({1, 2, 3, 4, 8, 10, 20, 30})


def test_late_is_well_after_the_minutes() -> None:
    assert not late(800.0, 100.0, SETTINGS)
    assert late(1000.0, 100.0, SETTINGS)
