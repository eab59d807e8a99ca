"""What the pilot's runs tell: the task loss within a budget, and how long a run of a kind will take."""

from __future__ import annotations

import pytest

from keeptune.plan import pilot
from keeptune.plan.design import Cell, Design, Pace
from keeptune.plan.pilot import Clock, Pilot, Run, loss_within, peak_memory

PACE = Pace(step=1.0, replay_step=2.0, reading=0.5, fixed=3.0, token=0.01, spent=9.0)


def run(cell: Cell, wall: float = 10.0) -> Run:
    rows = [{"N": 0, "P": 7, "seconds": 0.0}, {"N": 4, "P": 7, "seconds": 6.0}]
    return Run(cell=cell, rows=rows, tokens=0, wall=wall, memory=1)


def test_loss_within_a_budget_stops_where_the_budget_is_left() -> None:
    rows = [{"L_ft": 3.0, "KL": 0.0}, {"L_ft": 2.5, "KL": 0.01}, {"L_ft": 2.0, "KL": 0.03}, {"L_ft": 1.0, "KL": 0.5}]
    assert loss_within(rows, 0.02) == pytest.approx(2.25)
    assert loss_within(rows, 1.0) == 1.0
    assert loss_within(rows, 1e-9) == pytest.approx(3.0)


def test_a_run_knows_its_parameters_and_pace() -> None:
    one = run(Cell(4, 1e-3, 0.0))
    assert (one.parameters, one.step_seconds) == (7, 1.5)


def test_the_runs_at_the_best_rate_are_those_of_the_law() -> None:
    cells = [Cell(4, rate, 0.0) for rate in (1e-3, 3e-4)]
    pilot = Pilot(
        runs=[run(cell) for cell in cells],
        rate=3e-4,
        rate_losses={},
        design=Design(steps=24, rates=(1e-3, 3e-4), weights=(), ranks=(4,)),
        pace=PACE,
        pass_steps=9,
        missing=[],
        seconds=1.0,
    )
    assert [one.cell for one in pilot.at_rate()] == cells[1:]


def test_the_clock_takes_the_median_step_and_the_last_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 20.0, 29.0, 30.0, 31.0, 40.0, 43.0, 50.0, 52.0, 57.0])
    monkeypatch.setattr(pilot.time, "monotonic", lambda: next(now))
    clock = Clock()
    clock.on_train_begin(None, None, None)
    for _ in range(4):
        clock.on_step_begin(None, None, None)
        clock.on_step_end(None, None, None)
    clock.on_train_end(None, None, None)
    assert clock.step == 2.0, "of 1, 3 and 2 seconds; the 9 of the first step warm up"
    assert (clock.reading, clock.inside) == (5.0, 47.0)


def test_one_step_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 4.0])
    monkeypatch.setattr(pilot.time, "monotonic", lambda: next(now))
    clock = Clock()
    clock.on_step_begin(None, None, None)
    clock.on_step_end(None, None, None)
    assert clock.step == 3.0


def test_the_peak_of_memory_is_that_of_a_process_with_torch_loaded() -> None:
    assert 50 * 2**20 < peak_memory() < 2**40
