"""What the demo runs: chosen on other text and other documents than it reports on (see lab/LOG.md)."""

from dataclasses import dataclass
from pathlib import Path

from keeptune.runs.settings import TuneSettings

LENGTH = 128
TASK_ROWS = 8
REPLAY_ROWS = 4
METER_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """The demo's settings. The docstring under a field is its help text."""

    out: str = "demo"
    """Folder of the demo: models, readings, report.html, summary.json."""
    model: str = "smollm2"
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str = "verilog"
    """The new task."""
    text: str = "pydoc"
    """Old text on which forgetting is measured, beside the base's own."""
    steps: int = 48
    """Steps of plain fine-tuning; replay goes on to half as many again, to reach the same task loss."""
    lambda_: float = 3.0
    """Weight λ of the replay term."""
    documents: int = 64
    """Fresh samples, and documents of the old text at most, to measure on."""
    seed: int = 42
    """Of everything random."""

    @property
    def replay_steps(self) -> int:
        """Steps of the replay run."""
        return self.steps * 3 // 2

    @property
    def pool_tokens(self) -> int:
        """Tokens that the base writes: each replay row is used once, and the meter has its own."""
        return (self.replay_steps * REPLAY_ROWS + METER_ROWS) * LENGTH

    @property
    def folder(self) -> Path:
        """The demo's folder."""
        return Path(self.out)

    @property
    def pool(self) -> Path:
        """The replay pool for training."""
        return self.folder / "pool"

    def tune_settings(self, run: str) -> TuneSettings:
        """Settings of the run `plain` or `replay`: the same but for λ and the number of steps."""
        plain = run == "plain"
        return TuneSettings(
            model=self.model,
            data=self.data,
            out=str(self.folder / run),
            lambda_=0.0 if plain else self.lambda_,
            steps=self.steps if plain else self.replay_steps,
            replay=str(self.pool),
            replay_rows=REPLAY_ROWS,
            batch_size=TASK_ROWS,
            max_length=LENGTH,
            drift_rows=METER_ROWS,
            drift_every=max(1, self.steps // 3),
            checkpoint_every=0,
            seed=self.seed,
        )
