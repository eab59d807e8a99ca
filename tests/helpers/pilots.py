"""A pilot in a world whose task loss is known: a shifted power of the steps, with noise, at a known pace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keeptune.plan.design import Cell, Design, Pace, Setting
from keeptune.plan.ladder import TARGET, Outcome, Stop, next_cell
from keeptune.train.budget.certificate import Verdict

BUDGET = 0.02
RIGHT = 8.0
"""λ that meets the budget. KL falls as 1/λ, and every run ends at this one."""
PACE = Pace(step=1.0, reading=0.0, fixed=10.0, token=0.0, spent=0.0)
BEST = Setting(16, 1e-3)
DESIGN = Design(steps=16, rates=(1e-3, 3e-4), ranks=(16, 4, 64), pool_rows=528)


@dataclass(kw_only=True)
class World:
    """Runs that take `fixed + steps` seconds."""

    seed: int
    floor: float = 2.0
    gain: float = 4.0
    delay: float = 10.0
    power: float = 0.5
    noise: float = 0.01
    best: Setting = BEST
    breaks: Callable[[Cell], bool] = lambda cell: False

    def __post_init__(self) -> None:
        self.made: list[Cell] = []
        self.kept: dict[Cell, Outcome] = {}

    def loss(self, steps: int, setting: Setting) -> float:
        """Mean task loss. Other settings than the best learn less."""
        worse = 0.2 * abs(math.log(setting.rate / self.best.rate)) + 0.1 * abs(math.log(setting.rank / self.best.rank))
        return self.floor + worse + self.gain * (1 + steps / self.delay) ** -self.power

    def run(self, cell: Cell) -> Outcome:
        """One run, or what an earlier one of the same cell came to."""
        if cell in self.kept:
            return self.kept[cell]
        self.made.append(cell)
        draws = np.random.default_rng([self.seed, cell.steps, cell.order, cell.rank, round(1e6 * cell.rate)])
        kl = TARGET * BUDGET * math.sqrt(RIGHT / cell.start) * math.exp(0.05 * draws.standard_normal())
        kl = max(kl, 1.5 * BUDGET) if self.breaks(cell) else kl
        self.kept[cell] = Outcome(
            cell=cell,
            task_loss=self.loss(cell.steps, cell.setting) + self.noise * draws.standard_normal(),
            kl=kl,
            verdict=Verdict.BROKEN if kl > BUDGET else Verdict.KEPT,
            kl_of_lambda=kl,
            lambda_=math.sqrt(cell.start * RIGHT),
            step_seconds=PACE.step,
            wall=PACE.fixed + cell.steps,
            memory=1,
            rows=[{"L_ft": self.floor + self.gain}, {"N": cell.steps}],
        )
        return self.kept[cell]

    def pilot(self, seconds: float, limit: int, design: Design = DESIGN) -> tuple[list[Outcome], Stop]:
        """All runs of a pilot that has so many seconds."""
        done: list[Outcome] = []

        def fits(cell: Cell) -> bool:
            return cell in self.kept or sum(run.wall for run in done) + PACE.fixed + cell.steps <= seconds

        while isinstance(found := next_cell(done, design, limit, fits, budget=BUDGET), Cell):
            done.append(self.run(found))
        return done, found
