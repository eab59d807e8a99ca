"""The settings of `keeptune plan`. The docstring under a field is its help text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from keeptune.data.rows import ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.runs.settings import DEFAULT_LR, TuneSettings
from keeptune.workspace import Workspace

METER_ROWS = 16
HELD_OUT_ROWS = 16
LOWER_RATE = 0.3
_LEAST_RANK = 16
_READINGS = 4


class Shared(TypedDict):
    """Fields of `TuneSettings` that the pilot and the planned run share."""

    batch_size: int
    max_length: int
    replay_length: int
    drift_rows: int
    held_out_rows: int
    seed: int
    skip_bad_rows: bool


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What the user knows: model, data, tolerated forgetting, and available time."""

    model: str
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str
    """The new task: a hub data set, a file, folder or glob of rows (jsonl, csv, parquet) or text, verilog, or pydoc."""
    budget: float
    """Largest acceptable KL(base‖tuned) on the base's own text, nats per token."""
    out: str = "plan"
    """Output folder: pilot runs, plan.json, run.toml, the runs as a figure. An interrupted plan resumes there, and one
    with more minutes goes on from the runs that are done."""
    minutes: float = 20.0
    """Time for the pilot, including writing its replay text. More minutes give longer runs and repeats of the planned
    setting, so a longer planned run and a narrower interval."""
    hours: float | None = None
    """Longest time that the planned run may take on this machine; by default three passes over the data bound it."""
    max_rank: int = 64
    """Highest LoRA rank to plan. The pilot runs a quarter of it, and with enough minutes this rank and a sixteenth."""
    learning_rate: float | None = None
    """Peak learning rate; by default the pilot compares two, and lower ones where these break the budget."""
    batch_size: int = 4
    """Task rows in a step, and as many replay rows, in pilot and plan."""
    max_length: int = ROW_LENGTH
    """Longest row in tokens, in pilot and plan."""
    ray: bool = False
    """Make each run of the pilot as a task of Ray, on a GPU of the cluster, and again if its process dies. The runs
    follow one another, since each starts from the λ that those before it found. Needs the extra cluster."""
    seed: int = SEED
    """Seed of everything random."""
    skip_bad_rows: bool = False
    """Leave out rows of the data that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, example in (("budget", "0.01"), ("minutes", "20"), ("hours", "2"), ("learning_rate", "1e-3")):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}", f"give a positive number, such as {example}")
        if self.max_rank < _LEAST_RANK:
            fix = f"give {_LEAST_RANK} or more: the pilot runs a sixteenth of it too"
            raise ConfigError(f"max_rank is {self.max_rank}", fix)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", "give 0 or more")
        if self.batch_size < 1 or self.max_length < 2:
            step = f"a step of {self.batch_size} rows of {self.max_length} tokens"
            raise ConfigError(step, "give 1 row or more, of 2 or more")

    @property
    def folder(self) -> Path:
        """The plan's folder."""
        return Path(self.out)

    @property
    def workspace(self) -> Workspace:
        """The claim on the folder."""
        return Workspace(folder=self.folder, marker="pilot.json", kind="plan")

    @property
    def pool(self) -> Path:
        """The replay pool that all pilot runs share."""
        return self.folder / "pool"

    @property
    def ranks(self) -> tuple[int, int, int]:
        """Ranks of the pilot. The middle rank, which every pilot runs, comes first."""
        return self.max_rank // 4, self.max_rank // 16, self.max_rank

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to compare, the default first."""
        if self.learning_rate is not None:
            return (self.learning_rate,)
        return DEFAULT_LR["lora"], LOWER_RATE * DEFAULT_LR["lora"]

    def identity(self) -> Mapping[str, object]:
        """The settings that a folder depends on. Runs of another budget stand beside those of the first."""
        free = ("out", "budget", "minutes", "hours", "ray")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def shared(self) -> Shared:
        """What pilot and plan share."""
        return {
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "replay_length": self.max_length,
            "drift_rows": METER_ROWS,
            "held_out_rows": HELD_OUT_ROWS,
            "seed": self.seed,
            "skip_bad_rows": self.skip_bad_rows,
        }

    def tune_settings(self, out: Path, *, rank: int, rate: float, steps: int, order: int, start: float) -> TuneSettings:
        """One run of the pilot: as `keeptune tune` makes it, with this budget.

        Args:
            order: number of the order of the task rows. The planned command has order 0, and no run of the pilot has.
            start: λ at the first step.
        """
        return TuneSettings(
            model=self.model,
            data=self.data,
            out=str(out),
            lora=rank,
            learning_rate=rate,
            lambda_=start,
            steps=steps,
            budget=self.budget,
            drift_every=reading_every(steps),
            checkpoint_every=0,
            replay=str(self.pool),
            sft={"data_seed": self.seed + order},
            **self.shared(),
        )


def reading_every(steps: int) -> int:
    """Steps between the readings of a run, in pilot and plan."""
    return max(1, steps // _READINGS)
