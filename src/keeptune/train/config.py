"""What keeptune adds to a fine-tuning run. The docstring under a field is its documentation and its --help."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from keeptune.data.rows import ROW_LENGTH
from keeptune.errors import ConfigError
from keeptune.objective.divergence import DIVERGENCES
from keeptune.replay.manifest import Opening
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import TEACHERS, Teacher
from keeptune.train.bounds import HIGHEST, LOWEST, first_lambda, parse_bounds

DRIFT_EVERY = 20

# For each row that drift is read on. KL varies by about half its value from row to row, and λ aims a tenth below the
# budget: an interval that tells the two apart needs 100 to 300 rows, more than readings during training can afford.
CERTIFICATE_ROWS = 8
# Likewise; on these the change of the weights is scaled after the last step, once or a few times.
SCALE_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Settings of the replay term: loss = the task's loss + λ · R(replay), in nats per token."""

    lambda_: float = 1.0
    """Weight λ of the replay term. Larger values keep more and learn a little more slowly; 0 is plain fine-tuning."""
    budget: float | None = None
    """Upper bound on KL(base‖tuned) on the base's own text, nats per token. λ is moved to meet the bound; it starts at
    `lambda_`, or at 0.07 / budget where that is 1. After the last step the change of the weights is scaled so that KL
    comes to 0.8 of the budget, for which a copy of the trained weights is kept in host memory. The tuned model is
    certified on rows that were used for nothing else."""
    objective: str = "kl"
    """Replay term. `kl`, KL(base‖tuned), keeps all that the base finds likely. `reverse_kl` forbids what the base finds
    unlikely. `jensen_shannon` lies between them and is bounded; near the base it is a quarter of either, so use
    four times the λ. `ntp`, next-token loss, keeps the replay tokens only. Readings are always of `kl`."""
    replay: str | Path | ReplayPool | None = None
    """Replay pool that keeptune replay wrote (a folder); by default the base writes one before training."""
    replay_tokens: int = 98_304
    """Tokens that the base writes when no pool is given."""
    replay_length: int = ROW_LENGTH
    """Tokens in a row of a pool that the base writes."""
    replay_rows: int | None = None
    """Replay rows beside each task micro-batch; by default as many as the micro-batch has task rows."""
    teacher: str | Teacher = "auto"
    """Source of the base's predictions: `hidden` states on disk (exact), `topk` tokens on disk (small, blind in the
    tail), the model with its `adapter` disabled, or a `live` frozen copy. `auto` takes the first that fits."""
    top_k: int = 64
    """Tokens of each prediction that the topk teacher stores."""
    document_start: str | None = None
    """Token that starts a document, as text; set it where the one that keeptune finds is wrong."""
    opening: Opening = "auto"
    """What stands before a row of replay, as context: `start`, the token that starts a document; that token `twice`; a
    `newline` and that token; a newline, a short `text` of the base's own and that token; or `start-text`. `auto` takes
    the first after which the base's predictions are varied and hardly depend on rounding, and prints the numbers."""
    drift_every: int | None = None
    """Steps between readings of held-out task loss and drift; 0 reads at the start and the end only. By default 20, and
    no readings with lambda 0."""
    drift_rows: int = 32
    """Rows of the pool kept out of training, on which drift is read."""
    drift_text: str | None = None
    """Old text on which drift is read, named as DATA is; by default the rows of the pool kept out of training."""
    skip_bad_rows: bool = False
    """Leave out rows of the data and of drift_text that cannot be read. Their number and the first of them are logged,
    and the model card states the number; by default the first such row is an error."""

    laws: str | None = None
    """A laws.json of earlier runs of this base, trained the same way at other ranks. Forecasts of task loss and L_f
    start from these laws and are useful from the first readings on."""
    stop_if_forecast: tuple[str, ...] = ()
    """MEASURE=NUMBER: end the run early, with a checkpoint and exit code 1, when the whole forecast interval of its
    final kl, l_f_rise or l_ft lies above the number. Repeat it for more bounds."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if parse_bounds(self.stop_if_forecast) and self.drift_every == 0:
            raise ConfigError("stop_if_forecast needs readings, and drift_every is 0", "set drift_every to 1 or more")
        lowest = {"lambda_": 0.0, "drift_every": 0, "drift_rows": 1, "replay_tokens": 1, "top_k": 1, "replay_length": 2}
        for name, low in {**lowest, "replay_rows": 1}.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"{name.rstrip('_')} is {value}", f"set it to {low:g} or more")
        if isinstance(self.teacher, str) and self.teacher not in ("auto", *TEACHERS):
            raise ConfigError(f"unknown teacher {self.teacher!r}", f"choose one of {', '.join(['auto', *TEACHERS])}")
        if self.opening not in get_args(Opening):
            raise ConfigError(f"unknown opening {self.opening!r}", f"choose one of {', '.join(get_args(Opening))}")
        if self.objective != "ntp" and self.objective not in DIVERGENCES:
            names = ", ".join([*DIVERGENCES, "ntp"])
            raise ConfigError(f"unknown objective {self.objective!r}", f"choose one of {names}")
        if not isinstance(self.teacher, str) and self.objective == "ntp":
            raise ConfigError("objective ntp uses no teacher, and one is given", "leave teacher out, or choose kl")
        if self.budget is not None:
            self._check_budget(self.budget)

    def _check_budget(self, budget: float) -> None:
        if not 0.0 < budget < math.inf:
            raise ConfigError(f"budget is {budget}", "give a positive number of nats per token, such as 0.01")
        if self.objective != "kl":
            raise ConfigError(f"a budget bounds KL, and the objective is {self.objective!r}", "set objective to kl")
        if self.lambda_ == 0.0:
            raise ConfigError("a budget moves lambda, and lambda is 0", "leave lambda out, or leave budget out")
        if not LOWEST <= self.lambda_ <= HIGHEST:
            raise ConfigError(
                f"lambda is {self.lambda_:g}, and a budget moves lambda between {LOWEST:g} and {HIGHEST:g}",
                "set lambda in that range, or leave it out",
            )

    @property
    def first_lambda(self) -> float:
        """λ of the first step."""
        return self.lambda_ if self.budget is None or self.lambda_ != 1.0 else first_lambda(self.budget)

    def scale_rows(self, pool_rows: int) -> int:
        """How many of a pool's rows are kept to scale the change of the weights by: none without a budget."""
        if self.budget is None:
            return 0
        return min(SCALE_ROWS * self.drift_rows, max(pool_rows - self.drift_rows, 0) // 8)

    def certificate_rows(self, pool_rows: int) -> int:
        """How many of a pool's rows are kept for the certificate of the budget: none without one."""
        if self.budget is None:
            return 0
        return min(CERTIFICATE_ROWS * self.drift_rows, max(pool_rows - self.drift_rows, 0) // 4)

    @property
    def is_active(self) -> bool:
        """Whether anything is added to the trainer: a replay term, or readings of drift."""
        return self.lambda_ > 0 or self.drift_every is not None or self.drift_text is not None

    def reads_after(self, step: int, end: int) -> bool:
        """Whether drift is read after a step: every `drift_every`, at the powers of two before, and at a quarter."""
        every = DRIFT_EVERY if self.drift_every is None else self.drift_every
        # Laws and forecasts are straight lines in log(steps): the first steps tell as much as all the others.
        early = step < every and step.bit_count() == 1
        early |= step == -(-end // 4)  # the first forecast is made there
        return bool(every) and (early or step % every == 0)
