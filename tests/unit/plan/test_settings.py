"""The settings of a plan: what a folder depends on, what pilot and plan share, and values that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keeptune.errors import ConfigError
from keeptune.plan.settings import PlanSettings

SETTINGS = PlanSettings(model="smollm2", data="verilog", budget=0.02, minutes=15.0)


def test_budget_and_time_may_change_over_a_folder_and_nothing_else() -> None:
    for free in ({"budget": 1.0}, {"minutes": 1.0}, {"hours": 2.0}, {"out": "elsewhere"}):
        assert replace(SETTINGS, **free).identity() == SETTINGS.identity()
    for name, value in (("seed", 1), ("model", "other"), ("max_rank", 32), ("batch_size", 2), ("max_length", 64)):
        assert replace(SETTINGS, **{name: value}).identity() != SETTINGS.identity()


def test_the_middle_rank_and_the_default_rate_come_first() -> None:
    assert SETTINGS.ranks == (16, 4, 64)
    assert SETTINGS.rates[0] > SETTINGS.rates[1]
    assert replace(SETTINGS, learning_rate=5e-4).rates == (5e-4,)


def test_a_pilot_run_is_one_of_tune_with_the_budget_and_another_order_of_the_data() -> None:
    run = SETTINGS.tune_settings(Path("cell"), rank=4, rate=1e-3, steps=24, order=2, start=3.0)
    assert {name: getattr(run, name) for name in SETTINGS.shared()} == SETTINGS.shared()
    assert (run.lora, run.learning_rate, run.lambda_, run.steps, run.budget) == (4, 1e-3, 3.0, 24, 0.02)
    assert (run.checkpoint_every, run.replay) == (0, str(SETTINGS.pool))
    args = run.sft_config(bf16=False)
    assert args.data_seed == SETTINGS.seed + 2
    assert args.seed == SETTINGS.seed


@pytest.mark.parametrize(
    ("name", "value"),
    [("budget", 0.0), ("budget", -1.0), ("budget", float("nan")), ("minutes", 0.0), ("hours", -2.0), ("max_rank", 8),
     ("learning_rate", 0.0), ("batch_size", 0), ("max_length", 1), ("seed", -1)],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **{name: value})
