"""A forgetting budget: λ as the multiplier of "minimise the task loss subject to KL(base‖tuned) ≤ budget".

Dual ascent moves a multiplier along the violation of its constraint (Uzawa 1958, in Arrow, Hurwicz and Uzawa, *Studies
in Linear and Non-Linear Programming*), and the violation itself damps the swings between weights and multiplier: an
integral and a proportional part (Stooke, Achiam and Abbeel 2020, arXiv 2007.03964). Both act on logarithms, because a
multiplier is positive and KL falls about as a power of it (Rezende and Viola 2018, arXiv 1810.00597):

    log λ = log start + integral + GAIN · error
    integral += rate · error,    rate = 8 / steps, at most 0.1
    error = log(KL / allowed) cut to −1 … 1.5,    allowed = AIM · budget · (share of the run done)^RISE

KL is a moving average over optimizer steps. It needs tens of steps to follow λ, and the learning rate ends at 0, so a
short run depends on where λ starts (`keeptune.train.bounds.first_lambda`). What is left at the end is corrected by
`keeptune.train.budget.scale`.

A small pool is learned, so that its KL is too low: rows that are never trained on tell by how much.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from keeptune.errors import ConfigError
from keeptune.train.bounds import HIGHEST, LOWEST

AIM = 0.85
"""What λ steers for, as a share of the budget: a certificate needs room for its interval."""
GAIN, RISE = 1.0, 0.1
_LARGEST_MOVE = 0.35
_SMOOTHING = 0.3
_FLOOR = 1e-3
_FAR_BELOW, _FAR_ABOVE = -1.0, 1.5
# A low KL says nothing in the first part of a run, in which it has yet to grow.
_GROWS_UNTIL = 0.2
_LEAST_TO_COMPARE = 0.1


@dataclass(kw_only=True)
class ControllerState:
    """Everything that the controller remembers: with it, a resumed run goes on to the same bits."""

    step: float = 0.0
    """Updates so far."""
    log_start: float
    """log λ of the first step."""
    log_lambda: float
    """log λ, as it enters the loss."""
    integral: float = 0.0
    """The part of log λ that dual ascent has gathered."""
    level: float = 0.0
    """Moving average of the KL of the rows trained on, as a share of what is aimed at, started at 0."""
    weight: float = 0.0
    """Sum of the weights in `level`."""
    bias: float = 0.0
    """log(KL of rows never trained on / KL of rows trained on), smoothed over readings."""
    readings: float = 0.0
    """Readings that entered `bias`."""
    trust: float = 0.0
    """How much of `bias` is believed, 0 to 1."""
    scale: float = 0.0
    """What the change of the weights was scaled by after the last step; 0 before."""


class LambdaController:
    """The controller: `lambda_` is the weight to train with, `update` is told the KL of each optimizer step.

    Args:
        budget: bound on KL(base‖tuned), nats per token, above 0.
        start: λ of the first step, above 0.
        steps: optimizer steps of the whole run: a longer one is steered more slowly.
    """

    def __init__(self, budget: float, *, start: float, steps: int) -> None:
        self.aim = AIM * budget
        self.steps = steps
        self.rate = min(8.0 / steps, 0.1)
        log_start = min(max(math.log(start), math.log(LOWEST)), math.log(HIGHEST))
        self.state = ControllerState(log_start=log_start, log_lambda=log_start)

    @property
    def lambda_(self) -> float:
        """The weight λ of the replay term."""
        return math.exp(self.state.log_lambda)

    def update(self, kl: float) -> None:
        """Move λ after an optimizer step.

        Args:
            kl: mean KL over the step's replay tokens on all ranks, nats per token.
        """
        state = self.state
        state.step += 1
        state.level += _SMOOTHING * (kl / self.aim - state.level)
        state.weight += _SMOOTHING * (1 - state.weight)
        done = min(state.step / self.steps, 1.0)
        error = min(max(math.log(self._kl() / done**RISE), _FAR_BELOW), _FAR_ABOVE)
        if done < _GROWS_UNTIL:
            error = max(error, 0.0)
        state.integral += self.rate * error
        wanted = state.log_start + state.integral + GAIN * error
        bounded = min(max(wanted, math.log(LOWEST)), math.log(HIGHEST))
        # At a bound the integral waits there and does not go on beyond it.
        state.integral += bounded - wanted
        move = bounded - state.log_lambda
        state.log_lambda += min(max(move, -_LARGEST_MOVE), _LARGEST_MOVE)

    def compare(self, held_out_kl: float, rounds: float) -> None:
        """Take in a reading on rows that are never trained on.

        Args:
            held_out_kl: their mean KL, nats per token.
            rounds: how often the run has gone through the rows it trains on. Until it begins the second round each
                was new when it was read, so the mean over them says as much as a reading.
        """
        state = self.state
        seen, held_out = state.level / max(state.weight, _FLOOR), held_out_kl / self.aim
        if min(seen, held_out) < _LEAST_TO_COMPARE:
            return
        state.readings += 1
        state.bias += (math.log(held_out / seen) - state.bias) * max(1 / state.readings, 0.4)
        state.trust = rounds / (0.5 + rounds)

    def export(self) -> dict[str, float]:
        """The state, for JSON."""
        return asdict(self.state)

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `export` gave.

        Raises:
            ConfigError: it is not such a state.
        """
        try:
            self.state = ControllerState(**state)
        except TypeError as error:
            raise ConfigError(
                "the checkpoint's state of the budget is another version's",
                "go on with the version of keeptune that wrote it (run.json has it), or start the run anew",
            ) from error

    def _kl(self) -> float:
        """KL on rows that were never trained on, as well as is known, as a share of what is aimed at."""
        state = self.state
        return max(state.level / state.weight, _FLOOR) * math.exp(state.trust * state.bias)
