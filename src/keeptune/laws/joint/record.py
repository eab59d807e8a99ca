"""laws.json: what was fitted to which runs, with all that predictions and their intervals need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.forms import PUBLISHED, JointLaw, LineLaw, log_of
from keeptune.laws.joint.fit import Bands, JointFit, LineFit
from keeptune.laws.joint.heldout import last_steps, leave_one_rank_out
from keeptune.laws.joint.leverage import Leverage
from keeptune.laws.joint.surface import Surface
from keeptune.laws.readings import Runs
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.robust import Band
from keeptune.storage import damaged_json, read_json, write_json

FORMAT = 2
AGAIN = "make it anew with keeptune laws fit"
# Residuals kept for the intervals of new readings.
_RESIDUALS = 1000


def fit_laws(runs: Runs, *, bootstraps: int = 200, seed: int = 0) -> dict[str, Any]:
    """The line, the joint law where the runs determine one, and how far it is off on what it has not seen.

    Returns:
        What `write_laws` writes. Where there is no joint law or no held-out error, the text in its place says why.

    Raises:
        ConfigError: not even a line can be fitted.
    """
    line = LineFit(bootstraps=bootstraps, seed=seed).fit(runs)
    found: dict[str, Any] = {
        "format": FORMAT,
        "data": described(runs),
        "line": shared(line),
    }
    try:
        joint = JointFit(bootstraps=bootstraps, seed=seed).fit(runs)
    except ConfigError as error:
        return {**found, "joint": error.what}
    found["joint"] = {
        **shared(joint),
        "weak": joint.weak_,
        "condition": joint.condition_,
        "theta": joint.theta_.tolist(),
        "center": [joint.surface_.mean_log_P, joint.surface_.mean_log_N],
    }
    found["held_out"] = _held_out(runs)
    return found


def write_laws(path: Path, laws: dict[str, Any]) -> None:
    """Write what `fit_laws` found.

    Raises:
        StorageError: the disk is full or not writable.
    """
    write_json(path, laws)


def read_laws(path: Path) -> tuple[LineFit, JointFit | str]:
    """The fits of a laws.json, ready to predict.

    Returns:
        The line, and the joint law or why there is none.

    Raises:
        SourceNotFound: no such file.
        SourceError: not a laws.json of this version.
        ConfigError: it has the replay law.
    """
    found = read_file(path)
    if "replay" in found:
        raise ConfigError(f"{path} has the replay law", "give --lambda (0 for none) with --P and --N")
    with damaged_json(path, AGAIN):
        line, joint = LineFit(), found["joint"]
        restore(line, found["line"])
        line.law_ = LineLaw(**line.params_)
        if isinstance(joint, str):
            return line, joint
        fit = JointFit()
        restore(fit, joint)
        empty = np.empty(0)
        fit.surface_ = Surface(p=empty, n=empty, mean_log_P=joint["center"][0], mean_log_N=joint["center"][1])
        fit.law_, fit.slope_ = JointLaw(**fit.params_), fit.params_["c_f_ft"]
        fit.theta_, fit.weak_, fit.condition_ = np.array(joint["theta"]), joint["weak"], joint["condition"]
        fit.first_N_, fit.base_ = float(found["data"]["N"][0]), found["data"]["base"]
    return line, fit


def read_file(path: Path) -> dict[str, Any]:
    """What a laws.json holds.

    Raises:
        SourceNotFound: no such file.
        SourceError: not a laws.json of this version.
    """
    if not path.is_file():
        raise SourceNotFound(f"no laws at {path}", "make them with: keeptune laws fit RUNS --out laws.json")
    found = read_json(path, AGAIN)
    if not isinstance(found, dict) or "format" not in found:
        raise SourceError(f"{path} is not a laws.json", AGAIN)
    if found["format"] != FORMAT:
        raise SourceError(f"{path} is not a laws.json of this version: its format is {found['format']}", AGAIN)
    return found


def predict_losses(laws: str, *, P: float, N: float, interval: float) -> Bands:
    """Both losses by the joint law of a laws.json, or by a published one, which has no intervals.

    Raises:
        ConfigError: there is no joint law, or no value there.
        SourceError: no such file, or not a laws.json.
    """
    if laws in PUBLISHED:
        return Bands(*map(Band, PUBLISHED[laws].predict(P=P, N=N)))
    joint = read_laws(Path(laws))[1]
    if isinstance(joint, str):
        raise ConfigError(f"{laws} has no joint law: {joint}", "give --L-ft, a task loss, to predict by the line")
    return joint.predict(P=P, N=N, interval=interval)


def predict_on_line(laws: str, *, L_ft: float, interval: float) -> Band:
    """Forgetting at a task loss, by the line of a laws.json or of a published law.

    Raises:
        ConfigError: a task loss that is not above 0.
        SourceError: no such file, or not a laws.json.
    """
    log_of(L_ft, "task loss")
    if laws in PUBLISHED:
        return Band(PUBLISHED[laws].line.predict(L_ft=L_ft))
    return read_laws(Path(laws))[0].predict(L_ft=L_ft, interval=interval)


def beyond(laws: str, *, P: float, N: float) -> str | None:
    """What to say of a prediction outside the runs that a laws.json was fitted to; None inside, and of published laws.

    Args:
        laws: one that was read before.
    """
    if laws in PUBLISHED:
        return None
    with damaged_json(Path(laws), AGAIN):
        data = read_file(Path(laws))["data"]
        sizes, (first, last) = data["P"], data["N"]
    if sizes[0] <= P <= sizes[-1] and first <= N <= last:
        return None
    seen = f"P from {sizes[0]:,.0f} to {sizes[-1]:,.0f} and N from {first:.0f} to {last:.0f}"
    return f"Extrapolated: the runs have {seen}"


def described(runs: Runs) -> dict[str, Any]:
    """What laws.json says of the readings."""
    return {
        "readings": len(runs),
        "runs": runs.count,
        "P": runs.sizes,
        "N": [float(runs.N.min()), float(runs.N.max())],
        "dropped": runs.dropped,
        "left_out": runs.left_out,
        "base": runs.base,
    }


def shared(fit: LineFit | JointFit | ReplayFit) -> dict[str, Any]:
    """What all fits keep. Residuals are thinned evenly from the least to the greatest."""
    ordered = np.sort(np.atleast_2d(fit.residuals_), axis=1)
    places = np.unique(np.linspace(0, ordered.shape[1] - 1, _RESIDUALS).astype(int))
    return {
        "params": fit.params_,
        "spread": fit.spread_,
        "r2": fit.r2_,
        "runs": fit.runs_,
        "information": fit.leverage_.of_runs.tolist(),
        "residuals": ordered[:, places].tolist(),
        "draws": fit.draws_.tolist(),
    }


def restore(fit: LineFit | JointFit | ReplayFit, kept: dict[str, Any]) -> None:
    """What `shared` kept."""
    fit.params_ = kept["params"]
    fit.spread_ = {name: (low, high) for name, (low, high) in kept["spread"].items()}
    fit.leverage_ = Leverage(of_runs=np.array(kept["information"]))
    fit.r2_, fit.runs_ = kept["r2"], kept["runs"]
    fit.residuals_, fit.draws_ = np.array(kept["residuals"]), np.array(kept["draws"])


def _held_out(runs: Runs) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        found["one_rank"] = [{"P": size, **misses} for size, misses in leave_one_rank_out(runs).items()]
    except ConfigError as error:
        found["one_rank"] = error.what
    try:
        found["last_30_percent"] = last_steps(runs)
    except ConfigError as error:
        found["last_30_percent"] = error.what
    return found
