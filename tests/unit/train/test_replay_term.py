"""Which replay rows a step sees: a pure function, each row once a round, the same however a step is cut up."""

from __future__ import annotations

import torch

from keeptune.train.replay_term import replay_rows


def rows_of(step: int, micros: int = 1, world: int = 1, rows: int = 8, pool_rows: int = 24, seed: int = 0) -> list[int]:
    pieces = [
        replay_rows(
            step=step, micro=micro, micros=micros, rank=rank, world=world, rows=rows, pool_rows=pool_rows, seed=seed
        )
        for micro in range(micros)
        for rank in range(world)
    ]
    return torch.cat(pieces).tolist()


def test_every_row_once_a_round_in_a_new_order_each_round() -> None:
    rounds = [[row for step in range(start, start + 3) for row in rows_of(step)] for start in (0, 3, 6)]
    assert all(sorted(one) == list(range(24)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_a_step_sees_the_same_rows_however_it_is_cut() -> None:
    for step in (0, 5):
        assert rows_of(step) == rows_of(step, micros=4, rows=2) == rows_of(step, micros=2, world=2, rows=2)


def test_a_round_that_ends_inside_a_step_goes_on_in_the_next_order() -> None:
    drawn = [row for step in range(5) for row in rows_of(step, rows=4, pool_rows=10)]
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))


def test_the_seed_decides() -> None:
    assert rows_of(0, seed=1) != rows_of(0, seed=2)
