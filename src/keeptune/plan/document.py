"""What plan.json holds: the pilot, the run to make and what to expect of it. Losses and KL in nats per token."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.plan.ladder import Stop
from keeptune.system import Provenance
from keeptune.train.budget.certificate import Verdict
from keeptune.train.readings import Lambda, Reading


class Chosen(Lambda):
    """The run to make, what to expect of it with 90 % intervals, and what it was made from."""

    rank: int
    rate: float
    steps: int
    replay_tokens: int
    seconds: float
    task_loss: list[float]
    """Value, low and high."""
    KL: list[float]
    longest_run: int
    """Steps of the pilot's longest runs at this setting."""
    runs_of_that_length: int
    kept: int
    """Runs at this setting that kept the budget, of how many."""
    of: int


class PilotRun(Lambda):
    """A run of the pilot: `keeptune.plan.ladder.Outcome`."""

    rank: int
    rate: float
    steps: int
    order: int
    start: float
    task_loss: float
    verdict: Verdict
    wall: float
    memory: int
    KL: float
    counts: bool
    """Whether no later attempt stands for it."""
    readings: list[Reading]


class PilotRecord(TypedDict):
    """The pilot."""

    runs: list[PilotRun]
    base_task_loss: float
    design: Mapping[str, object]
    pace: Mapping[str, object]
    pass_steps: int
    limit: int
    stop: Stop
    seconds: float
    memory: int


class Asked(TypedDict):
    """The fields of `PlanSettings`, of which these are shown."""

    model: str
    data: str
    budget: float
    minutes: float


class PlanDocument(Provenance):
    """The whole; `command` is that of the planned run."""

    settings: Asked
    pilot: PilotRecord
    plan: Chosen
    notes: list[str]
