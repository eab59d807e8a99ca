"""The settings of `keeptune plan`. The docstring under a field is its help text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keeptune.data.rows import ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.runs.settings import DEFAULT_LR, TuneSettings
from keeptune.workspace import Workspace

METER_ROWS = 16
HELD_OUT_ROWS = 16
WARMUP_STEPS = 4
# With a constant rate the readings along one run are those of shorter runs, as the laws assume.
CONSTANT = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": WARMUP_STEPS}
_LOWER_RATE = 0.3
_LEAST_RANK = 16


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
    """Output folder: pilot runs, plan.json, run.toml, the frontier as a figure. An interrupted plan resumes there."""
    minutes: float = 20.0
    """Time for the pilot, including writing its replay text."""
    hours: float | None = None
    """Longest time that the planned run may take on this machine; by default only its steps are bounded."""
    max_rank: int = 64
    """Highest LoRA rank to plan. The pilot runs this rank, a quarter and a sixteenth of it."""
    learning_rate: float | None = None
    """Peak learning rate; by default the pilot compares two."""
    batch_size: int = 4
    """Task rows in a step, and as many replay rows, in pilot and plan."""
    max_length: int = ROW_LENGTH
    """Longest row in tokens, in pilot and plan."""
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
        return DEFAULT_LR["lora"], _LOWER_RATE * DEFAULT_LR["lora"]

    def identity(self) -> dict[str, Any]:
        """The settings that finished pilot runs depend on. Budget, minutes and hours may change in a folder."""
        free = ("out", "budget", "minutes", "hours")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def shared(self) -> dict[str, Any]:
        """Fields of `TuneSettings` that the pilot and the planned run share."""
        rows = {"batch_size": self.batch_size, "max_length": self.max_length, "replay_length": self.max_length}
        return {
            **rows,
            "drift_rows": METER_ROWS,
            "held_out_rows": HELD_OUT_ROWS,
            "seed": self.seed,
            "skip_bad_rows": self.skip_bad_rows,
        }

    def tune_settings(
        self, out: Path, *, rank: int, rate: float, lambda_: float, steps: int, every: int
    ) -> TuneSettings:
        """One run of the pilot."""
        run: dict[str, Any] = {"lora": rank, "learning_rate": rate, "lambda_": lambda_, "steps": steps}
        run |= {"drift_every": every, "checkpoint_every": 0, "replay": str(self.pool), "sft": dict(CONSTANT)}
        return TuneSettings(model=self.model, data=self.data, out=str(out), **run, **self.shared())
