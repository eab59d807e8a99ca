"""The forecast during training: after each reading, where the run will end, and a stop if that breaks a bound.

A forecast is made from the rows of `runs.jsonl` alone, which a resume rewinds, so it has no state to restore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.laws.forecast.forecast import FIRST_SHARE, Measure, Prediction, forecast, forecast_with_law
from keeptune.laws.joint.fit import JointFit
from keeptune.laws.joint.record import read_laws
from keeptune.log import logger
from keeptune.stats import format_interval
from keeptune.train.bounds import ForecastBound, parse_bounds
from keeptune.train.context import KeepContext
from keeptune.train.host.distributed import all_agree
from keeptune.train.readings import FILE, Ends, Forecast, Reading, read_rows

_SHOWN: dict[Measure, str] = {"l_ft": "loss", "l_f_rise": "L_f +", "kl": "KL"}


class ForecastCallback(TrainerCallback):
    """Forecasts the run's end after each reading, and ends the run, with a checkpoint, where a bound will be broken.

    As a listener of readings it adds `forecast` to the row; what it found is in the context's `forecast_note` and
    `stopped`.
    """

    def __init__(self, context: KeepContext) -> None:
        self.context = context
        self.bounds = parse_bounds(context.keep.stop_if_forecast)
        self.law = None if context.keep.laws is None else law_of(context.keep.laws, context.base)
        self.path = context.host.output_dir / FILE
        self._step = -1
        self._reason: str | None = None

    def on_reading(self, row: Reading, state: Any) -> None:
        """Add the forecast to the row; only the main process has the readings before it."""
        if not self.context.host.is_main:
            self._step, self._reason = row["step"], None
            return
        end = state.max_steps
        learning_rates = rates(self.context.host.scheduler(), end)
        found = forecast_row([*read_rows(self.path), row], end, learning_rates, self.bounds, self.law)
        row["forecast"] = found
        self._step, self._reason = row["step"], found.get("stop") if found else None
        self.context.forecast_note = describe(found)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Act on the reading of this step, if there was one: on all processes alike, though only one forecasts."""
        if not self.bounds or self._step != state.global_step:
            return
        if all_agree(self._reason is None, args.device):
            return
        stopped = self._reason or "the forecast breaks a bound"
        self.context.stopped, self.context.paused = stopped, True
        control.should_save = True
        control.should_training_stop = True
        if state.is_world_process_zero:
            logger.info(f"Stopping after step {state.global_step}, with a checkpoint: {stopped}")


def law_of(path: str, base: str) -> JointFit:
    """The joint law of a laws.json, for runs of the base with this fingerprint.

    Raises:
        ConfigError: there is no joint law in it, or it is another base's.
        SourceError: not a laws.json.
    """
    law = read_laws(Path(path))[1]
    if isinstance(law, str):
        raise ConfigError(f"{path} has no joint law: {law}", "fit it to runs of three ranks or more")
    if law.base_ is not None and law.base_ != base:
        raise ConfigError(
            f"{path} is the law of another base ({law.base_[:12]}, model {base[:12]})", "fit it to runs of this model"
        )
    return law


def forecast_row(
    rows: Sequence[Reading],
    end: int,
    rates: Sequence[float] | str,
    bounds: Sequence[ForecastBound] = (),
    law: JointFit | None = None,
) -> Forecast | None:
    """What the last of some rows of `runs.jsonl` says of the run's end, for its own `forecast`.

    Args:
        rows: all readings of the run so far, the base's first.
        end: the run's last step.
        rates: the learning rate of each step, or why it is not known.
        bounds: on what is forecast.
        law: of earlier runs, from which L_ft and L_f are then forecast.

    Returns:
        None at the first and the last step. `beyond` and `stop` are there with bounds only.
    """
    step = rows[-1]["step"]
    if step == 0 or step >= end:
        return None
    early = f"a forecast needs a quarter of the run, and step {step} of {end} is {step / end:.1%}"
    why_none = early if step < FIRST_SHARE * end else rates

    def of(measure: Measure) -> Ends | str:
        return why_none if isinstance(why_none, str) else _one(rows, measure, end, why_none)

    found: Forecast = {"share": round(step / end, 4), "l_ft": of("l_ft"), "l_f_rise": of("l_f_rise"), "kl": of("kl")}
    if law is not None:
        found["l_ft"], found["l_f_rise"] = _with_law(law, rows, end)
    if bounds:
        found["beyond"] = [str(bound) for bound in bounds if _surely_beyond(found, bound)]
        before = rows[-2].get("forecast") if len(rows) > 1 else None
        twice = [bound for bound in bounds if _surely_beyond(found, bound) and _surely_beyond(before, bound)]
        found["stop"] = "; ".join(_reason(found, bound) for bound in twice) or None
    return found


def _one(rows: Sequence[Reading], measure: Measure, end: int, rates: Sequence[float]) -> Ends | str:
    values = [_value(row, measure) for row in rows]
    base = values[0] if rows[0]["step"] == 0 else None
    try:
        said = forecast(
            measure,
            [row["step"] for row in rows],
            [math.nan if value is None else value for value in values],
            end=end,
            base=base if measure == "l_ft" else None,
            rates=rates,
        )
    except ConfigError as error:
        return error.what
    return _rounded(said)


def _with_law(law: JointFit, rows: Sequence[Reading], end: int) -> tuple[Ends | str, Ends | str]:
    """Of L_ft, and of the rise of L_f."""
    L_ft = [math.nan if row["L_ft"] is None else row["L_ft"] for row in rows]
    base = rows[-1]["L_f_base"]
    try:
        task, forgetting = forecast_with_law(
            law,
            P=rows[-1]["P"],
            steps=[row["step"] for row in rows],
            L_ft=L_ft,
            L_f=[row["L_f"] for row in rows],
            end=end,
        )
    except ConfigError as error:
        return error.what, error.what
    rise = Prediction(*(value - base for value in forgetting))
    return _rounded(task), _rounded(rise)


def _rounded(said: Prediction) -> Ends:
    return {"value": round(said.value, 6), "low": round(said.low, 6), "high": round(said.high, 6)}


def _value(row: Reading, measure: Measure) -> float | None:
    return {"l_ft": row["L_ft"], "l_f_rise": row["L_f"] - row["L_f_base"], "kl": row["KL"]}[measure]


def _surely_beyond(found: Forecast | None, bound: ForecastBound) -> bool:
    said = None if found is None else found[bound.measure]
    return isinstance(said, dict) and said["low"] > bound.limit


def _reason(found: Forecast, bound: ForecastBound) -> str:
    said = found[bound.measure]
    ends = said if isinstance(said, str) else format_interval(said, ".4g")
    return (
        f"{bound.measure} is forecast to end at {ends}, bound {bound}: "
        "at two readings in a row the 90 % interval excludes the bound"
    )


def rates(scheduler: Any, end: int) -> list[float] | str:
    """The learning rate of each step, up to a factor; or why those to come are not known."""
    scheduler = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(scheduler, LambdaLR):
        return f"the learning rates to come are not known ({type(scheduler).__name__})"
    of_step = scheduler.lr_lambdas[0]
    return [float(of_step(step)) for step in range(end)]


def describe(found: Forecast | None) -> str:
    """A forecast as the note beside a progress bar; "" where there is none."""
    ends = [(name, found[key]) for key, name in _SHOWN.items()] if found else []
    shown = [f"{name} {format_interval(end, '.3g')}" for name, end in ends if not isinstance(end, str)]
    return f"→ end: {', '.join(shown)}" if shown else ""
