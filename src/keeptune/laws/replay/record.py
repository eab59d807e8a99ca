"""laws.json of the replay law: the fit, its runs, and what predictions with intervals need."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keeptune.errors import ConfigError
from keeptune.laws.forms import PUBLISHED
from keeptune.laws.joint.fit import Bands
from keeptune.laws.joint.record import AGAIN, FORMAT, described, or_reason, read_file, restore, shared
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.heldout import leave_cells_out
from keeptune.laws.replay.model import Model
from keeptune.storage import damaged_json


def fit_replay_law(runs: ReplayRuns, *, bootstraps: int = 200, seed: int = 0) -> dict[str, Any]:
    """Fit the replay law, and compute its errors and those of simpler laws on held-out cells.

    Returns:
        The content of laws.json. If no cell can be left out, the reason stands in the place of the errors.

    Raises:
        ConfigError: these runs cannot determine the law.
    """
    fit = ReplayFit(bootstraps=bootstraps, seed=seed).fit(runs)
    laws: dict[str, Any] = {
        "format": FORMAT,
        "data": {**described(runs), "cells": runs.cells, "L_f_base": runs.L_f_base},
        "replay": {**shared(fit), "form": fit.form_, "weak": fit.weak_, "theta": fit.theta_.tolist()},
    }
    laws["replay"]["model"] = {**asdict(fit.model_), "fixed": fit.model_.fixed.tolist()}
    laws["left_out"] = or_reason(lambda: leave_cells_out(runs))
    return laws


def read_replay_law(path: Path) -> ReplayFit:
    """The fit of a laws.json, ready to predict.

    Raises:
        SourceNotFound: no such file.
        SourceError: not a laws.json of this version.
        ConfigError: its runs did not differ in their replay.
    """
    laws = read_file(path)
    if "replay" not in laws:
        raise ConfigError(
            f"{path} has no replay law: its runs did not differ in λ or replay tokens",
            "leave out --lambda and --replay-tokens, or fit runs that differ in them",
        )
    with damaged_json(path, AGAIN):
        kept, fit = laws["replay"], ReplayFit()
        restore(fit, kept)
        model = kept["model"]
        arrays = {"fixed": np.array(model["fixed"]), "free": tuple(model["free"]), "center": tuple(model["center"])}
        fit.model_ = Model(**{**model, **arrays})
        fit.form_, fit.theta_ = kept["form"], np.array(kept["theta"])
        fit.restore()
    return fit


def predict_with_replay(
    laws: str, *, P: float, N: float, lambda_: float, tokens: float | None, interval: float
) -> Bands:
    """Predict both losses by the replay law of a laws.json.

    Args:
        tokens: distinct replay tokens; None if no token is used twice.

    Raises:
        ConfigError: there is no replay law, or it is not defined there.
        SourceError: no such file, or not a laws.json.
    """
    if laws in PUBLISHED:
        raise ConfigError(f"the published law {laws} does not include replay", "leave out --lambda and --replay-tokens")
    pool = np.inf if tokens is None else tokens
    return read_replay_law(Path(laws)).predict(P=P, N=N, lambda_=lambda_, tokens=pool, interval=interval)
