"""laws.json of the replay law: its fit, its runs, its errors on held-out cells, and what predictions need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final, get_args

import numpy as np
from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.errors import ConfigError
from keeptune.laws.forms import PUBLISHED, Floats
from keeptune.laws.joint.document import DataRecord, FitRecord
from keeptune.laws.joint.fit import Bands
from keeptune.laws.joint.record import (
    AGAIN,
    FORMAT,
    described,
    laws_of,
    or_reason,
    read_file,
    restore,
    shared,
    vector,
)
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.law import FREE, Form, Model
from keeptune.log import track
from keeptune.stats import bootstrap_ratio
from keeptune.storage import damaged_json

FORMS: Sequence[Form] = get_args(Form)


class Comparison(TypedDict):
    """Errors of each form on held-out cells of λ × replay tokens, nats per token.

    All cells have the same weight, whatever their number of runs and readings.
    """

    cells: list[dict[str, float]]
    """For each cell: `lambda`, `replay_tokens`, and the mean absolute error by form and loss, such as `replay.L_f`."""
    mean: dict[str, dict[str, float]]
    """By form and loss: the mean over cells."""
    against: dict[str, tuple[float, float | None, float | None]]
    """By rival: its error in L_f minus the law's, the mean over cells with the ends of a 95 % bootstrap over cells.
    Above 0 the law is better."""


class ReplayDataRecord(DataRecord):
    """The readings, with their cells of λ and replay tokens."""

    cells: list[tuple[float, float]]
    L_f_base: float


class ModelRecord(TypedDict):
    """`keeptune.laws.replay.law.Model`."""

    form: Form
    center: tuple[float, float]
    fixed: list[float]
    free: tuple[int, ...]
    L_f_base: float
    only_P: float | None


class ReplayRecord(FitRecord[tuple[float, float]]):
    """The replay law, see `ReplayFit`."""

    form: Form
    weak: list[str]
    theta: list[float]
    model: ModelRecord


@final
class ReplayLaws(TypedDict):
    """laws.json of runs that differ in their replay. If no cell can be left out, the reason stands there."""

    format: int
    data: ReplayDataRecord
    replay: ReplayRecord
    left_out: Comparison | str


def leave_cells_out(runs: ReplayRuns, forms: Sequence[Form] = FORMS) -> Comparison:
    """Fit each form without each cell with λ above 0, and compare it with that cell.

    The runs without replay are always fitted, because the law describes replay relative to them.

    Raises:
        ConfigError: too few cells to leave one out.
    """
    cells = [cell for cell in runs.cells if cell[0] > 0]
    if len(cells) < 3:
        what = f"{len(cells)} cells of λ and replay tokens are too few to leave one out"
        raise ConfigError(what, "add runs with another λ or pool")
    rows = []
    with track("Leave one cell out", len(cells) * len(forms), "fits") as task:
        for weight, tokens in cells:
            out = np.equal(runs.lambda_, weight) & np.equal(runs.tokens, tokens)
            kept, left = runs.where(~out), runs.where(out)
            row = {"lambda": weight, "replay_tokens": tokens}
            for form in forms:
                law = ReplayFit(form=form, bootstraps=0).fit(kept).law_
                predicted = law.predict(P=left.P, N=left.N, lambda_=left.lambda_, tokens=left.tokens)
                row[f"{form}.L_ft"] = float(np.mean(np.abs(predicted.L_ft - left.L_ft)))
                row[f"{form}.L_f"] = float(np.mean(np.abs(predicted.L_f - left.L_f)))
                task.advance()
            rows.append(row)
    errors = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    mean: dict[str, dict[str, float]] = {
        form: {loss: float(errors[f"{form}.{loss}"].mean()) for loss in ("L_ft", "L_f")} for form in forms
    }
    against: dict[str, tuple[float, float | None, float | None]] = {
        rival: _mean(errors[f"{rival}.L_f"] - errors["replay.L_f"])
        for rival in forms
        if rival != "replay" and "replay" in forms
    }
    return Comparison(cells=rows, mean=mean, against=against)


def _mean(values: Floats) -> tuple[float, float | None, float | None]:
    """With the ends of its interval."""
    mean = bootstrap_ratio(values, np.ones(len(values)))
    return mean.value, mean.low, mean.high


def fit_replay_law(runs: ReplayRuns, *, bootstraps: int = 200, seed: int = 0) -> ReplayLaws:
    """Fit the replay law, and compute its errors and those of simpler laws on held-out cells.

    Raises:
        ConfigError: these runs cannot determine the law.
    """
    fit = ReplayFit(bootstraps=bootstraps, seed=seed).fit(runs)
    model = fit.model_
    return {
        "format": FORMAT,
        "data": {**described(runs), "cells": runs.cells, "L_f_base": runs.L_f_base},
        "replay": {
            **shared(fit),
            "form": fit.form_,
            "weak": fit.weak_,
            "theta": fit.theta_.tolist(),
            "model": {
                "form": model.form,
                "center": model.center,
                "fixed": model.fixed.tolist(),
                "free": model.free,
                "L_f_base": model.L_f_base,
                "only_P": model.only_P,
            },
        },
        "left_out": or_reason(lambda: leave_cells_out(runs)),
    }


def read_replay_law(path: Path) -> ReplayFit:
    """The fit of a laws.json, ready to predict.

    Raises:
        SourceNotFound, SourceError: as `read_file` raises them.
        ConfigError: its runs did not differ in their replay.
    """
    content = read_file(path)
    if "replay" not in content:
        what = f"{path} has no replay law: its runs did not differ in λ or replay tokens"
        raise ConfigError(what, "leave out --lambda and --replay-tokens, or fit runs that differ in them")
    kept, fit = laws_of(path, content, ReplayLaws)["replay"], ReplayFit()
    with damaged_json(path, AGAIN):
        model = kept["model"]
        parameters = len(model["free"]) + len(FREE[kept["form"]])
        restore(fit, kept, parameters=parameters)
        fit.model_ = Model(
            form=model["form"],
            center=model["center"],
            fixed=np.array(model["fixed"]),
            free=model["free"],
            L_f_base=model["L_f_base"],
            only_P=model["only_P"],
        )
        fit.form_, fit.theta_ = kept["form"], vector(kept["theta"], parameters)
        fit.restore()
    return fit


def predict_with_replay(
    laws: str, *, P: float, N: float, lambda_: float, tokens: float | None, interval: float
) -> Bands:
    """Predict both losses by the replay law of a laws.json; `tokens` is None if no replay token is used twice.

    Raises:
        ConfigError: there is no replay law, or it is not defined there.
        SourceError: no such file, or not a laws.json.
    """
    if laws in PUBLISHED:
        raise ConfigError(f"the published law {laws} does not include replay", "leave out --lambda and --replay-tokens")
    pool = np.inf if tokens is None else tokens
    return read_replay_law(Path(laws)).predict(P=P, N=N, lambda_=lambda_, tokens=pool, interval=interval)
