"""The data of the figures: readings by run, the law through them, the ends of runs."""

from __future__ import annotations

import dataclasses

import pytest

from keeptune.laws.figures import drawing, run_ends
from tests.helpers.laws import readings
from tests.helpers.replay_laws import readings as replay_readings


def test_a_figure_has_each_runs_readings_in_order_and_the_law_through_them() -> None:
    runs = readings(noise=0)
    data = drawing(runs)
    assert [of["P"] for of in data["by_P"]] == runs.sizes
    first = data["by_P"][0]
    assert first["N"] == [*range(50, 261, 10)] * 3
    assert first["fit"]["N"][0] == pytest.approx(50)
    assert first["fit"]["L_f"][-1] == pytest.approx(first["L_f"][-1], rel=1e-6)


def test_the_ends_are_the_last_readings_of_the_runs_in_any_order() -> None:
    runs = replay_readings()
    ends = run_ends(runs)
    columns = ("P", "N", "L_ft", "L_f", "run", "lambda_", "tokens")
    backwards = dataclasses.replace(runs, **{name: getattr(runs, name)[::-1] for name in columns})
    assert run_ends(backwards) == ends
    assert len(ends["runs"]) == runs.count
    first = ends["runs"][0]
    at_end = (runs.N.max() == runs.N) & (runs.lambda_ == first["lambda"]) & (runs.tokens == first["tokens"])
    assert (first["L_ft"], first["L_f"]) == (runs.L_ft[at_end][0], runs.L_f[at_end][0])
    assert ends["L_f_base"] == runs.L_f_base
