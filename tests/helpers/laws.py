"""Readings drawn from a published law."""

from __future__ import annotations

import numpy as np

from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, JointLaw
from keeptune.laws.readings import Runs

OPENORCA = JointLaw.published("llama2-7b-chat/openorca")


def readings(
    seed: int = 0,
    noise: float = 0.02,
    apart: float = 0.0,
    ranks: tuple[int, ...] = (8, 16, 32, 64, 128, 256),
    seeds: int = 3,
    law: JointLaw = OPENORCA,
) -> Runs:
    """Every 10 steps from 50 to 260; `noise` of a reading and of a whole run are shares of the loss."""
    generator = np.random.default_rng(seed)
    run, N = (axis.ravel() for axis in np.meshgrid(range(len(ranks) * seeds), np.arange(50.0, 261.0, 10.0)))
    P = np.array(ranks, dtype=float)[run // seeds] * LLAMA_2_7B_PARAMETERS_PER_RANK
    L_ft, L_f = (
        loss * (1 + noise * generator.standard_normal(len(P)) + apart * generator.standard_normal(run.max() + 1)[run])
        for loss in law.predict(P=P, N=N)
    )
    return Runs(P=P, N=N, L_ft=L_ft, L_f=L_f, run=run)
