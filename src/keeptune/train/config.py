"""What keeptune adds to a fine-tuning run. The docstring under a field is its documentation and its --help."""

from dataclasses import dataclass
from typing import Literal

from keeptune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Settings of the replay term: loss = CE(task) + λ · R(replay), in nats per token."""

    lambda_: float = 1.0
    """Weight λ of the replay term; 0 is plain fine-tuning, larger keeps more and learns a little slower."""
    objective: Literal["kl", "ntp"] = "kl"
    """Replay term: `kl` holds the base's whole distribution at every replay token, `ntp` its sampled tokens only."""
    replay: str | None = None
    """Folder of a replay pool written by the base; by default the base writes one before training."""
    replay_tokens: int = 98_304
    """Tokens that the base writes when no pool is given."""
    replay_length: int = 128
    """Tokens in a row of a pool that the base writes."""
    replay_rows: int | None = None
    """Replay rows beside each task micro-batch; by default as many as it has task rows."""
    teacher: Literal["auto", "hidden", "topk", "adapter", "live"] = "auto"
    """Where the base's predictions come from: its `hidden` states on disk (exact), its `topk` words on disk (small,
    blind in the tail), itself with the `adapter` off, or a `live` frozen copy; `auto` takes the first that fits."""
    top_k: int = 64
    """Words that the topk teacher keeps of each prediction."""
    document_start: str | None = None
    """Token that starts a document, as text, where the one found for the tokenizer is not the right one."""
    meter_every: int = 20
    """Steps between readings of held-out task loss and drift; 0 reads at the start and the end only."""
    meter_rows: int = 32
    """Rows of the pool kept out of training, on which drift is read."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        for name, low in (("lambda_", 0.0), ("meter_every", 0), ("meter_rows", 1), ("replay_tokens", 1), ("top_k", 1)):
            if not getattr(self, name) >= low:
                raise ConfigError(f"{name.rstrip('_')} is {getattr(self, name)}", f"give a number of {low} or more")
        if self.replay_length < 2:
            raise ConfigError(f"replay_length is {self.replay_length}", "give 2 or more")
        if self.teacher not in ("auto", "hidden", "topk", "adapter", "live"):
            raise ConfigError(f"unknown teacher {self.teacher!r}", "choose auto, hidden, topk, adapter or live")
        if self.objective not in ("kl", "ntp"):
            raise ConfigError(f"unknown objective {self.objective!r}", "choose kl or ntp")
        if self.replay_rows is not None and self.replay_rows < 1:
            raise ConfigError(f"replay_rows is {self.replay_rows}", "give 1 or more; lambda 0 switches replay off")
