"""Readings drawn from a known replay law: one rank, λ × replay tokens as in lab/replay_law."""

from __future__ import annotations

import math

import numpy as np

from keeptune.laws.forms import JointLaw
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.law import Hold, ReplayLaw

# A shifted power of N alone: at P = 1e6 the term in P is nothing.
JOINT = JointLaw(
    log_a_ft=-700.0, log_b_ft=math.log(5.0), alpha_ft=1.0, beta_ft=0.6, log_a_f=-700.0, log_b_f=math.log(3.0),
    alpha_f=1.0, beta_f=0.5, rho=1.0, c_ft=1.0, s_ft=1.3, c_f_ft=1.0, s_f_ft=3.2,
)  # fmt: skip
LAW = ReplayLaw(joint=JOINT, hold=Hold(lambda_0=0.2, gamma=0.8, kappa=0.15, tokens_0=3000.0, delta=0.7), L_f_base=1.2)
WEIGHTS, POOLS = (0.1, 0.3, 1.0, 3.0, 10.0), (1e3, 8e3, 64e3)


def readings(
    seed: int = 0,
    noise: float = 0.003,
    law: ReplayLaw = LAW,
    P: tuple[float, ...] = (1e6,),
    steps: int = 10,
    weights: tuple[float, ...] = WEIGHTS,
) -> ReplayRuns:
    """Every cell of λ × tokens and one run without replay for each P; `noise` of a reading in nats per token."""
    generator = np.random.default_rng(seed)
    cells = [(size, 0.0, 0.0) for size in P] + [
        (size, weight, pool) for size in P for weight in weights for pool in POOLS
    ]
    run, N = (axis.ravel() for axis in np.meshgrid(range(len(cells)), np.linspace(10, 100, steps)))
    sizes, lambda_, tokens = np.array(cells)[run].T
    L_ft, L_f = (
        loss + noise * generator.standard_normal(len(run))
        for loss in law.predict(P=sizes, N=N, lambda_=lambda_, tokens=tokens)
    )
    return ReplayRuns(P=sizes, N=N, L_ft=L_ft, L_f=L_f, run=run, lambda_=lambda_, tokens=tokens, L_f_base=law.L_f_base)
