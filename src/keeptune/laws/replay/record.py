"""laws.json of the replay law: what was fitted to which runs, with all that predictions and their intervals need."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keeptune.errors import ConfigError
from keeptune.laws.forms import PUBLISHED
from keeptune.laws.joint.fit import Bands
from keeptune.laws.joint.record import AGAIN, FORMAT, described, read_file, restore, shared
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.heldout import leave_cells_out
from keeptune.laws.replay.model import Model
from keeptune.storage import damaged_json


def fit_replay_law(runs: ReplayRuns, *, bootstraps: int = 200, seed: int = 0) -> dict[str, Any]:
    """The replay law, and how far it and simpler ones are off on cells left out.

    Returns:
        What `joint.record.write_laws` writes. Where nothing can be left out, the text in its place says why.

    Raises:
        ConfigError: these runs cannot determine the law.
    """
    fit = ReplayFit(bootstraps=bootstraps, seed=seed).fit(runs)
    found: dict[str, Any] = {
        "format": FORMAT,
        "data": {**described(runs), "cells": runs.cells, "L_f_base": runs.L_f_base},
        "replay": {**shared(fit), "form": fit.form_, "weak": fit.weak_, "theta": fit.theta_.tolist()},
    }
    found["replay"]["model"] = {**asdict(fit.model_), "fixed": fit.model_.fixed.tolist()}
    try:
        found["left_out"] = leave_cells_out(runs)
    except ConfigError as error:
        found["left_out"] = error.what
    return found


def read_replay_law(path: Path) -> ReplayFit:
    """The fit of a laws.json, ready to predict.

    Raises:
        SourceNotFound: no such file.
        SourceError: not a laws.json of this version.
        ConfigError: its runs did not differ in their replay.
    """
    found = read_file(path)
    if "replay" not in found:
        raise ConfigError(
            f"{path} has no replay law: its runs did not differ in λ or replay tokens",
            "leave out --lambda and --replay-tokens, or fit runs that differ in them",
        )
    with damaged_json(path, AGAIN):
        kept, fit = found["replay"], ReplayFit()
        restore(fit, kept)
        model = kept["model"]
        fit.model_ = Model(
            **{
                **model,
                "fixed": np.array(model["fixed"]),
                "free": tuple(model["free"]),
                "center": tuple(model["center"]),
            }
        )
        fit.form_, fit.theta_ = kept["form"], np.array(kept["theta"])
        fit.restore()
    return fit


def predict_with_replay(
    laws: str, *, P: float, N: float, lambda_: float, tokens: float | None, interval: float
) -> Bands:
    """Both losses by the replay law of a laws.json.

    Args:
        tokens: distinct replay tokens; None where none is used twice.

    Raises:
        ConfigError: there is no replay law, or no value there.
        SourceError: no such file, or not a laws.json.
    """
    if laws in PUBLISHED:
        raise ConfigError(f"the published law {laws} knows no replay", "leave out --lambda and --replay-tokens")
    pool = np.inf if tokens is None else tokens
    return read_replay_law(Path(laws)).predict(P=P, N=N, lambda_=lambda_, tokens=pool, interval=interval)
