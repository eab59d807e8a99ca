"""A forgetting budget: λ as the multiplier of "minimise the task loss subject to KL(base‖tuned) ≤ budget".

Dual ascent moves a multiplier along the violation of its constraint (Uzawa 1958, in Arrow, Hurwicz and Uzawa, *Studies
in Linear and Non-Linear Programming*); the method of multipliers adds the violation itself, which damps the swings
between the weights and the multiplier (Hestenes 1969, *J. Optim. Theory Appl.* 4; Powell 1969; Platt and Barr 1987 for
networks trained by gradient). In the terms of control the two are an integral and a proportional part (Stooke, Achiam
and Abbeel 2020, arXiv 2007.03964). Here both act on logarithms, as a multiplier is positive and KL falls about as a
power of it (Rezende and Viola 2018, arXiv 1810.00597, multiply λ by an exponential too):

    log λ = integral + GAIN · error,    integral += rate · error,    error = log(KL / (AIM · budget)) cut to −1 … 1.5

KL starts at 0 and follows λ after tens of steps, read on few rows, so its mean is smoothed with a trend (Holt 1957),
which follows a ramp without lag. The integral stands still in the first tenth and while the error is closing by itself
(conditional integration against wind-up: Åström and Hägglund 2006, *Advanced PID Control*, 3.5). λ moves by at most a
third a step.

At a high learning rate the steps themselves shake KL up, whatever λ is, and it falls as the rate decays: held to the
budget then, λ would swing far beyond what the end needs. So the aim is (1 + slack · what is left of the run) times as
high on the way, and the slack is learned: KL ≈ a/λ + slack · what is left, by least squares.

A small pool is learned, so that its KL is too low: rows that are never trained on tell by how much.

KL needs tens of steps to follow λ, and the learning rate ends at 0, so a short run depends on where λ starts
(`keeptune.train.bounds.first_lambda`). What is left at the end is corrected by `keeptune.train.budget.scale`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from keeptune.errors import ConfigError
from keeptune.train.bounds import HIGHEST, LOWEST

AIM = 0.85
"""What λ steers for, as a share of the budget: a certificate needs room for its interval."""
GAIN = 0.8
_SLACK, _MOST_SLACK, _SLACK_PRIOR_STEPS = 1.0, 4.0, 3.0
_NO_SLACK_FROM = 0.75
_LARGEST_MOVE = 0.35
_SMOOTHING, _TREND_SMOOTHING = 0.4, 0.06
_FLOOR = 1e-3
_FAR_BELOW, _FAR_ABOVE = -1.0, 1.5
_LEAST_TO_COMPARE = 0.1


@dataclass(kw_only=True)
class ControllerState:
    """Everything that the controller remembers: with it, a resumed run goes on to the same bits."""

    step: float = 0.0
    """Updates so far."""
    log_lambda: float
    """log λ, as it enters the loss."""
    integral: float
    """The part of log λ that dual ascent has gathered."""
    level: float = 0.0
    """Smoothed KL of the rows trained on, as a share of what is aimed at."""
    trend: float = 0.0
    """Its smoothed change from step to step."""
    inverse: float
    """Smoothed 1/λ."""
    slack: float = _SLACK
    """How much of what is aimed at KL may be above it at the first step."""
    s11: float = 0.0
    """Σ inverse², and so on: 1 is `inverse`, 2 what is left of the run, y `level`; older steps fade."""
    s12: float = 0.0
    s22: float = 0.0
    s1y: float = 0.0
    s2y: float = 0.0
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
        self.rate = min(max(8.0 / steps, 0.01), 0.05)
        log_start = min(max(math.log(start), math.log(LOWEST)), math.log(HIGHEST))
        # At first KL is far below, and the proportional part must not move λ away from where it is told to start.
        self.state = ControllerState(log_lambda=log_start, integral=log_start - GAIN * _FAR_BELOW, inverse=1 / start)

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
        expected = state.level + state.trend
        surprise = kl / self.aim - expected
        state.level = expected + _SMOOTHING * surprise
        state.trend += _SMOOTHING * _TREND_SMOOTHING * surprise
        self._learn_slack()
        error = self._error()
        if not self._closing(error):
            state.integral += self.rate * _cut(error)
        wanted = state.integral + GAIN * _cut(error)
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
        expected, held_out = state.level + state.trend, held_out_kl / self.aim
        if min(expected, held_out) < _LEAST_TO_COMPARE:
            return
        state.readings += 1
        state.bias += (math.log(held_out / expected) - state.bias) * max(1 / state.readings, 0.4)
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

    def _error(self) -> float:
        state = self.state
        allowed = 1 + state.slack * self._early()
        return math.log(self._kl() / allowed)

    def _kl(self) -> float:
        """KL on rows that were never trained on, as well as is known, as a share of what is aimed at."""
        return max(self.state.level, _FLOOR) * math.exp(self.state.trust * self.state.bias)

    def _early(self) -> float:
        """1 at the first step, 0 from where KL has to be within the budget."""
        return max(1 - self.state.step / (_NO_SLACK_FROM * self.steps), 0.0)

    def _learn_slack(self) -> None:
        """Least squares of KL on 1/λ and on the run's part that is left, with a prior on the latter's share."""
        state = self.state
        state.inverse += _SMOOTHING * (1 / self.lambda_ - state.inverse)
        if state.step < self.steps / 10:
            return
        early, fade = self._early(), 1 - 4 / max(self.steps, 8)
        state.s11 = fade * state.s11 + state.inverse**2
        state.s12 = fade * state.s12 + state.inverse * early
        state.s22 = fade * state.s22 + early**2
        state.s1y = fade * state.s1y + state.inverse * self._kl()
        state.s2y = fade * state.s2y + early * self._kl()
        determinant = state.s11 * (state.s22 + _SLACK_PRIOR_STEPS) - state.s12**2
        slack = ((state.s2y + _SLACK_PRIOR_STEPS * _SLACK) * state.s11 - state.s12 * state.s1y) / determinant
        state.slack = min(max(slack, 0.0), _MOST_SLACK)

    def _closing(self, error: float) -> bool:
        """Whether the error will be gone within a third of the steps left if KL goes on growing as a power of time."""
        state = self.state
        if error < 0 and state.step < self.steps / 10:
            return True  # too early to tell a slow start from a weak pull
        power = state.step * state.trend / max(state.level, _FLOOR)
        ahead = max(self.steps - state.step, 0.0) / 3
        return error * (error + power * math.log1p(ahead / state.step)) < 0


def _cut(error: float) -> float:
    return min(max(error, _FAR_BELOW), _FAR_ABOVE)
