"""Which runs a pilot makes, in a world whose losses are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keeptune.plan.design import Cell, Setting
from keeptune.plan.ladder import LOWER_RATES, REPEATS, TARGET, Stop, best, breaks, lengths, of, valid
from tests.helpers.pilots import BUDGET, DESIGN, RIGHT, World


@pytest.mark.parametrize("seconds", [150.0, 300.0, 700.0, 2000.0, 9000.0])
@pytest.mark.parametrize("limit", [16, 50, 400, 100_000])
def test_a_pilot_ends_in_time_and_uses_it_or_says_what_stops_it(seconds: float, limit: int) -> None:
    done, stop = World(seed=0).pilot(seconds, limit)
    used = sum(run.wall for run in done)
    assert used <= max(seconds, done[0].wall)
    assert max(run.cell.steps for run in done) <= limit
    if stop is Stop.TIME:
        assert seconds - used < 10 + 16, "the shortest run would have fitted"
    else:
        chosen = best(done)
        assert len(of(done, chosen, limit)) == REPEATS


def test_more_time_makes_longer_runs_of_the_best_setting_and_no_two_runs_are_alike() -> None:
    tops = []
    for seconds in (300.0, 700.0, 1500.0, 4000.0):
        done, _ = World(seed=1).pilot(seconds, 100_000)
        assert best(done) == Setting(16, 1e-3)
        tops.append(lengths(done, best(done))[-1])
        assert len({run.cell for run in done}) == len(done)
    assert tops == sorted(set(tops))


@pytest.mark.parametrize("setting", [Setting(16, 1e-3), Setting(16, 3e-4), Setting(4, 1e-3), Setting(64, 3e-4)])
def test_the_setting_that_learns_most_is_found_among_rates_and_then_ranks(setting: Setting) -> None:
    done, _ = World(seed=2, best=setting).pilot(2000.0, 100_000)
    assert best(done) == setting


def test_the_runner_up_is_tried_at_full_length_before_the_repeats() -> None:
    world = World(seed=3)
    done, stop = world.pilot(1e6, 64)
    assert stop is Stop.MEASURED
    long = [cell for cell in world.made if cell.steps == 64]
    assert [cell.setting == best(done) for cell in long] == [True, True, False, True, True]


def test_a_first_run_that_only_found_lambda_is_made_again_from_there() -> None:
    world = World(seed=4)
    done, _ = world.pilot(400.0, 100_000)
    assert done[0].cell == Cell(16, 1e-3, 16, 1, 1.0)
    assert done[1].cell[:4] == (16, 1e-3, 16, 1)
    assert done[1].cell.start == pytest.approx(RIGHT, rel=0.15)
    assert done[0] not in valid(done)
    assert [run for run in valid(done) if run.kl > BUDGET or run.kl < 0.7 * BUDGET] == []
    assert len({cell[:4] for cell in world.made}) == len(world.made) - 1


def test_lambda_starts_at_one_or_more_though_a_short_run_needs_none() -> None:
    short = replace(World(seed=0).run(Cell(16, 1e-3, 16, 1, 1.0)), kl_of_lambda=0.1 * BUDGET, lambda_=0.01)
    assert short.right_lambda(BUDGET) == 1.0
    assert replace(short, kl_of_lambda=2 * TARGET * BUDGET, lambda_=4.0).right_lambda(BUDGET) == pytest.approx(8.0)


@pytest.mark.parametrize("highest", [3e-4, 1e-4, 1e-5])
def test_where_the_rates_break_the_budget_lower_ones_are_tried(highest: float) -> None:
    done, stop = World(seed=5, breaks=lambda cell: cell.rate > 1.05 * highest).pilot(1e5, 400)
    if highest < 1e-3 * 0.3 ** (LOWER_RATES + 1):
        assert breaks(done, best(done))
        assert stop is Stop.MEASURED
    else:
        assert best(done).rate <= 1.05 * highest
        assert not breaks(done, best(done))


def test_a_setting_that_breaks_the_budget_in_longer_runs_is_left_for_another() -> None:
    done, _ = World(seed=6, breaks=lambda cell: cell.rate == 1e-3 and cell.steps > 40).pilot(3000.0, 100_000)
    assert best(done).rate == pytest.approx(3e-4)
    assert lengths(done, best(done))[-1] > 100


@pytest.mark.parametrize("ended", [1, 3, 5, 7])
def test_an_interrupted_pilot_makes_the_same_decisions_again(ended: int) -> None:
    done, stop = World(seed=7).pilot(900.0, 100_000)
    world = World(seed=7)
    world.kept = {run.cell: run for run in done[:ended]}
    again, _ = world.pilot(900.0, 100_000)
    assert [run.cell for run in again] == [run.cell for run in done]
    assert world.made == [run.cell for run in done[ended:]]
    assert stop is Stop.TIME


def test_more_minutes_go_on_from_the_runs_that_are_done() -> None:
    world = World(seed=9)
    first, _ = world.pilot(500.0, 100_000)
    second, _ = world.pilot(3000.0, 100_000)
    assert lengths(second, best(second))[-1] > lengths(first, best(first))[-1]
    unused = {run.cell for run in first} - {run.cell for run in second}
    assert len(unused) <= 1


def test_with_one_rate_and_rank_there_is_one_setting() -> None:
    done, _ = World(seed=8).pilot(500.0, 100_000, replace(DESIGN, rates=(5e-4,), ranks=(16,)))
    assert {run.cell.setting for run in done} == {Setting(16, 5e-4)}
