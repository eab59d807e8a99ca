"""The settings of the demo, chosen on other documents than those it reports on (see lab/LOG.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keeptune.data.rows import SEED
from keeptune.runs.settings import TuneSettings
from keeptune.workspace import Workspace

LENGTH = 128
METER_ROWS = 8
HELD_OUT_ROWS = 24
TASK_ROWS = 8
REPLAY_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """The demo's settings. The docstring under a field is its help text."""

    out: str = "demo"
    """Output folder: models, readings, report.html, summary.json."""
    model: str = "smollm2"
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str = "verilog"
    """The new task."""
    text: str = "pydoc"
    """Old text on which drift is measured, beside the base's own text."""
    steps: int = 24
    """Steps of plain fine-tuning. The replay run takes 1.5 times as many, to reach the same task loss."""
    lambda_: float = 3.0
    """Weight λ of the replay term."""
    documents: int = 48
    """Number of fresh samples, and the most documents of the old text, to measure on."""
    seed: int = SEED
    """Seed of everything random."""
    skip_bad_rows: bool = False
    """Leave out rows of --data and --text that cannot be read; their number and the first of them are logged. By
    default the first such row is an error."""

    rank: ClassVar[int | None] = 16
    """Of the LoRA; None tunes all weights."""
    learning_rate: ClassVar[float] = 5e-4

    @property
    def replay_steps(self) -> int:
        """Steps of the replay run."""
        return self.steps * 3 // 2

    @property
    def pool_tokens(self) -> int:
        """Tokens that the base writes: each replay row is used once, and the drift readings have their own rows."""
        return (self.replay_steps * REPLAY_ROWS + METER_ROWS) * LENGTH

    @property
    def folder(self) -> Path:
        """The demo's folder."""
        return Path(self.out)

    @property
    def workspace(self) -> Workspace:
        """The claim on the folder."""
        return Workspace(folder=self.folder, marker="demo.json", kind="demo")

    @property
    def pool(self) -> Path:
        """The replay pool for training."""
        return self.folder / "pool"

    def tune_settings(self, run: str) -> TuneSettings:
        """Settings of the run `plain` or `replay`. They differ in λ and the number of steps."""
        plain = run == "plain"
        # The replay run must be read where the plain run ends.
        third = max(1, self.steps // 3)
        return TuneSettings(
            model=self.model,
            data=self.data,
            skip_bad_rows=self.skip_bad_rows,
            out=str(self.folder / run),
            lambda_=0.0 if plain else self.lambda_,
            steps=self.steps if plain else self.replay_steps,
            replay=str(self.pool),
            replay_rows=REPLAY_ROWS,
            batch_size=TASK_ROWS,
            lora=self.rank,
            learning_rate=self.learning_rate,
            max_length=LENGTH,
            held_out_rows=HELD_OUT_ROWS,
            drift_rows=METER_ROWS,
            drift_every=third if self.steps % third == 0 else self.steps,
            checkpoint_every=0,
            seed=self.seed,
        )
