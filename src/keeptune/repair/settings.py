"""The settings of `keeptune repair`. The docstring under a field is its help text."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from keeptune.data.rows import MAX_LENGTH, ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.repair.methods import METHODS
from keeptune.replay.openings import Prompts
from keeptune.workspace import Workspace

CERTIFICATE_ROWS = 4
"""For each row of the base's text that candidates are chosen on: fresh rows of it, for the certificate."""
# They decide no reading: a later command in the same folder goes on from the readings that are there.
_FREE = ("out", "budget", "most_lost", "method")


@dataclass(frozen=True, kw_only=True)
class RepairSettings:
    """What is repaired, to which budget, and what may be tried."""

    base: str
    """The base model: a hub id, a folder, a .gguf file, or smollm2."""
    tuned: str
    """The tuned model, or an adapter on the base."""
    budget: float = 0.02
    """Largest acceptable KL(base‖repaired) on the base's own text, nats per token. `keeptune audit` tells what it is
    now."""
    out: str = "repair"
    """Output folder: the repaired model, repair.json, report.html, and what was computed on the way. An interrupted
    repair resumes there, and another budget goes on from the readings that are there."""
    method: list[str] = field(default_factory=list)
    """Try this method only: interpolate, groups, trim, dare, svd, or self-repair by short tuning (tune). Repeat it for
    more; by default all are tried."""
    task_text: str | None = None
    """Text of what the model was tuned on, named as DATA in keeptune tune. Learning is then read on it: a part chooses,
    another is held out, and tune trains on the rest. By default it is read on text that the tuned model writes."""
    skip_bad_rows: bool = False
    """Leave out rows of --task-text that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""
    most_lost: float = 0.5
    """Largest acceptable share of what was learned that a repair may lose, 0 to 1. Where the budget costs more, the
    answer is "not reachable", with the nearest model."""
    prompts: Prompts = "document"
    """How the models' own texts start: as a document; as a chat; or mixed, every second row as a chat. Use mixed for a
    model that was tuned on chats."""
    document_start: str | None = None
    """Token that starts a document. Give it if the detected one is wrong."""
    rows: int = 64
    """Rows of each text that candidates are chosen on. Four times as many fresh rows of the base's text certify the
    result, and as many of the tuned model's are held out. More rows narrow the intervals and take longer."""
    length: int = ROW_LENGTH
    """Tokens in a row that a model writes."""
    max_length: int = MAX_LENGTH
    """Tokens in the longest row of the task's text."""
    tuning_steps: int = 100
    """Optimizer steps of self-repair."""
    tuning_rank: int = 16
    """Rank of the LoRA that self-repair trains; it is merged into the result."""
    learning_rate: float = 3e-4
    """Peak learning rate of self-repair."""
    batch_size: int = 8
    """Rows of each text in a step of self-repair."""
    seed: int = SEED
    """Seed of everything random."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, example in (("budget", "0.02"), ("learning_rate", "3e-4")):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}", f"give a positive number, such as {example}")
        if not 0 <= self.most_lost <= 1:
            raise ConfigError(f"most_lost is {self.most_lost}", "give a share between 0 and 1, such as 0.5")
        for name, least in (("rows", 2), ("length", 2), ("max_length", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}", f"give {least} or more")
        for name in ("tuning_steps", "tuning_rank", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", "give 1 or more, or name other methods")
        if self.prompts not in get_args(Prompts):
            raise ConfigError(f"prompts is {self.prompts!r}", f"choose one of {', '.join(get_args(Prompts))}")
        for name in self.method:
            if name not in METHODS:
                raise ConfigError(f"there is no method {name!r}", f"choose from {', '.join(METHODS)}")
            if self.method.count(name) > 1:
                raise ConfigError(f"the method {name} is named twice", "name it once")
        if self.base == self.tuned:
            raise ConfigError(f"{self.tuned} is named as the base and as the tuned model", "name two models")

    @property
    def folder(self) -> Path:
        """The folder of the repair."""
        return Path(self.out)

    @property
    def workspace(self) -> Workspace:
        """The claim on the folder."""
        return Workspace(folder=self.folder, marker="repairing.json", kind="repair")

    @property
    def methods(self) -> list[str]:
        """The methods to try, in their order."""
        return [name for name in METHODS if name in (self.method or METHODS)]

    @property
    def certificate_rows(self) -> int:
        """Fresh rows of the base's text."""
        return CERTIFICATE_ROWS * self.rows

    @property
    def tuning_rows(self) -> int:
        """Rows of each text that self-repair trains on, each once."""
        return self.tuning_steps * self.batch_size if "tune" in self.methods else 0

    def identity(self) -> dict[str, Any]:
        """The settings that a folder depends on."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}
