"""The replay term is the objective's divergence, and the rows that a step sees are a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from keeptune.objective import forward_kl, jensen_shannon, next_token_ce, reverse_kl
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.teachers import LiveCopy
from keeptune.train.loop import held_out_kl
from keeptune.train.replay_term import replay_rows, replay_sum
from tests.helpers.models import make_model

DENSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": lambda student_NV, teacher_NV: jensen_shannon(student_NV, teacher_NV, 0.5),
}
BATCH = ReplayBatch(tokens_BW=torch.randint(3, 259, (3, 13), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("objective", [*DENSE, "ntp"])
def test_the_term_is_the_dense_one_in_value_and_gradients(objective: str) -> None:
    base, student, dense_student = make_model(), make_model(seed=1), make_model(seed=1)
    teacher = None if objective == "ntp" else LiveCopy(base, torch.float32)
    loss = replay_sum(student, BATCH, teacher, objective)
    student_NV = dense_student(input_ids=BATCH.inputs_BP).logits.flatten(0, 1)
    base_NV = base(input_ids=BATCH.inputs_BP).logits.flatten(0, 1).detach()
    dense = (
        next_token_ce(student_NV, BATCH.targets_BT.flatten())
        if objective == "ntp"
        else DENSE[objective](student_NV, base_NV)
    )
    torch.testing.assert_close(loss, dense, rtol=1e-5, atol=1e-5)
    loss.backward()
    dense.backward()
    for ours, reference in zip(student.parameters(), dense_student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-4, atol=1e-4)


def test_near_the_base_divergences_are_alike_but_for_a_factor() -> None:
    base, student = make_model(), make_model()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn_like(parameter))
        teacher = LiveCopy(base, torch.float32)
        kl, reverse, shannon = (replay_sum(student, BATCH, teacher, objective).item() for objective in DENSE)
    assert kl > 1e-2
    assert (reverse / kl, shannon / kl) == pytest.approx((1.0, 0.25), rel=0.02)
    assert held_out_kl(student, BATCH, teacher, torch.float32) == pytest.approx(kl / BATCH.targets_BT.numel())


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
