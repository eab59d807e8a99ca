"""The replay term of the loss, and which rows of the pool it sees when: shared by the trainer and the plain loop."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from keeptune.models.modeling import head_of, hidden_states
from keeptune.models.noise import without_noise
from keeptune.objective import fused_divergence, fused_next_token_ce
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.teachers import Teacher


def replay_rows(
    *, step: int, micro: int, micros: int, rank: int, world: int, rows: int, pool_rows: int, seed: int
) -> Tensor:
    """Indices of the pool's rows for one micro-batch on one rank, int64 [rows].

    A pure function of its arguments, so that resuming needs no iterator state: the run walks through the pool in a
    fresh random order each time round, and a step sees the same rows however they are cut into micro-batches and ranks.
    """
    first = ((step * micros + micro) * world + rank) * rows
    slots = range(first, first + rows)
    return torch.stack([_order(pool_rows, seed, slot // pool_rows)[slot % pool_rows] for slot in slots])


@lru_cache(maxsize=4)
def _order(pool_rows: int, seed: int, round_: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1_000_003 * round_)
    return torch.randperm(pool_rows, generator=generator)


def replay_sum(model: nn.Module, batch: ReplayBatch, teacher: Teacher | None, objective: str = "kl") -> Tensor:
    """Σ R over every target of the batch, in nats, differentiable; divide by the global count of such targets.

    R is next-token cross-entropy without a teacher; with one the objective's divergence, KL(base‖model) unless told.
    The model predicts as the base did, without dropout, NEFTune or router jitter: their noise would be read as drift.
    """
    target = None if teacher is None else teacher.target(model, batch)
    with without_noise(model):
        student_ND = batch.at_targets(hidden_states(model, batch.inputs_BP))
    if target is None:
        return fused_next_token_ce(student_ND, head_of(model), batch.targets_BT.flatten())
    return fused_divergence(student_ND, head_of(model), target, objective)
