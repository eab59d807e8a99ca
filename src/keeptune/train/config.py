"""What keeptune adds to a fine-tuning run. The docstring under a field is its documentation and its --help."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from keeptune.errors import ConfigError
from keeptune.train.bounds import parse_bounds
from keeptune.train.budget.controller import HIGHEST, LOWEST

Objective = Literal["kl", "reverse_kl", "jensen_shannon", "ntp"]

# For each row that the meter reads. KL varies by about its half from row to row and λ aims a tenth below the budget: an
# interval that tells the two apart needs 100 to 300 rows, more than a meter in the loop can read.
CERTIFICATE_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Settings of the replay term: loss = CE(task) + λ · R(replay), in nats per token."""

    lambda_: float = 1.0
    """Weight λ of the replay term; 0 is plain fine-tuning, larger keeps more and learns a little slower."""
    budget: float | None = None
    """Steer λ, which starts at `lambda_`, so that KL(base‖tuned) on the base's own text ends within this many nats per
    token, and certify the tuned model on rows that neither training nor λ saw."""
    objective: Objective = "kl"
    """Replay term: `kl` holds all that the base finds likely at every replay token; `reverse_kl` forbids what it finds
    unlikely; `jensen_shannon` is between them and bounded, near the base a quarter of them, so that λ wants four times
    as much; `ntp` holds the replay tokens only, not what the base predicts there. Readings are of `kl` always."""
    replay: str | None = None
    """Folder of a pool that keeptune replay made; by default the base writes one before training."""
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
    drift_every: int = 20
    """Steps between readings of held-out task loss and drift; 0 reads at the start and the end only."""
    drift_rows: int = 32
    """Rows of the pool kept out of training, on which drift is read."""
    drift_text: str | None = None
    """Old text on which drift is read, named as DATA is; by default the rows of the pool kept out of training."""

    finch: float | None = None
    """Start from this fraction of the peak learning rate, such as 0.5, and let it grow to the peak as 1/√(task loss)
    (FINCH), in place of another schedule: what a step forgets grows with rate and loss."""

    laws: str | None = None
    """A laws.json of earlier runs of this base, trained the same way at other ranks: forecasts of task loss and L_f
    start from it, and are good from the first readings on."""
    stop_if_forecast: tuple[str, ...] = ()
    """MEASURE=NUMBER: end the run early, with a checkpoint and exit code 1, where the forecast of its final kl,
    l_f_rise or l_ft is surely above the number. Repeat it for more bounds."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if parse_bounds(self.stop_if_forecast) and self.drift_every == 0:
            raise ConfigError("a run without readings has no forecast to stop it", "give drift_every 1 or more")
        for name, low in (("lambda_", 0.0), ("drift_every", 0), ("drift_rows", 1), ("replay_tokens", 1), ("top_k", 1)):
            if not getattr(self, name) >= low:
                raise ConfigError(f"{name.rstrip('_')} is {getattr(self, name)}", f"give a number of {low} or more")
        if self.replay_length < 2:
            raise ConfigError(f"replay_length is {self.replay_length}", "give 2 or more")
        if self.teacher not in ("auto", "hidden", "topk", "adapter", "live"):
            raise ConfigError(f"unknown teacher {self.teacher!r}", "choose auto, hidden, topk, adapter or live")
        if self.objective not in get_args(Objective):
            raise ConfigError(
                f"unknown objective {self.objective!r}", f"choose one of {', '.join(get_args(Objective))}"
            )
        if self.finch is not None and not 0.0 < self.finch <= 1.0:
            raise ConfigError(f"finch is {self.finch}", "give a fraction of the peak learning rate, such as 0.5")
        if self.budget is not None:
            self._check_budget(self.budget)
        if self.replay_rows is not None and self.replay_rows < 1:
            raise ConfigError(f"replay_rows is {self.replay_rows}", "give 1 or more; lambda 0 switches replay off")

    def _check_budget(self, budget: float) -> None:
        if not 0.0 < budget < math.inf:
            raise ConfigError(f"budget is {budget}", "give a positive number of nats per token, such as 0.01")
        if self.objective != "kl":
            raise ConfigError(f"a budget bounds a KL, and the objective is {self.objective}", "choose kl")
        if self.lambda_ == 0.0:
            raise ConfigError("lambda 0 switches replay off, and a budget steers it", "leave lambda out")
        if not LOWEST <= self.lambda_ <= HIGHEST:
            raise ConfigError(
                f"a budget steers lambda between {LOWEST:g} and {HIGHEST:g}, and it starts at {self.lambda_:g}",
                "give a start in between, or leave lambda out",
            )

    def certificate_rows(self, pool_rows: int) -> int:
        """How many of a pool's rows are kept for the certificate of the budget: none without one."""
        if self.budget is None:
            return 0
        return min(CERTIFICATE_ROWS * self.drift_rows, max(pool_rows - self.drift_rows, 0) // 4)

    def reads_after(self, step: int, end: int) -> bool:
        """Whether the meter reads after a step: every `drift_every`, at the powers of two before, and at a tenth."""
        # Laws and forecasts are straight in the logarithm of steps: the first steps tell as much as all the others.
        early = step < self.drift_every and step.bit_count() == 1
        early |= step == -(-end // 10)  # the first forecast is made there
        return bool(self.drift_every) and (early or step % self.drift_every == 0)
