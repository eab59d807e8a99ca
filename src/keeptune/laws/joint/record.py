"""laws.json: the fitted laws, their runs, errors on held-out readings, and what predictions with intervals need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.codec import JsonValue, from_json
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.forms import PUBLISHED, Floats, JointLaw, LineLaw, log_of
from keeptune.laws.joint.document import R2, DataRecord, FitRecord, HeldOut, JointRecord, Laws, Misses
from keeptune.laws.joint.fit import Bands, JointFit, LineFit, refuse_few
from keeptune.laws.joint.surface import NAMES, Surface
from keeptune.laws.readings import Runs
from keeptune.laws.robust import Band, Leverage, thinned
from keeptune.log import track
from keeptune.storage import damaged_json, read_json, write_json

FORMAT = 2
AGAIN = "create it again with: keeptune laws fit RUNS --out laws.json"
# Most residuals that are kept for the intervals of new readings.
_RESIDUALS = 1000

_Result = TypeVar("_Result")
_Kind = TypeVar("_Kind")


class _OfAnyKind(TypedDict):
    data: DataRecord


def leave_one_rank_out(runs: Runs) -> dict[float, Misses]:
    """Errors for each P of the joint law fitted without its runs. The smallest and largest P are extrapolated.

    Raises:
        ConfigError: fewer than four distinct P, since the law needs three.
    """
    for size in runs.sizes:
        refuse_few(runs.where(np.not_equal(runs.P, size)))
    errors = {}
    with track("Leave one rank out", len(runs.sizes), "ranks") as task:
        for size in runs.sizes:
            errors[size] = _misses(runs, np.equal(runs.P, size))
            task.advance()
    return errors


def last_steps(runs: Runs, share: float = 0.3) -> Misses:
    """Errors on the last `share` of each run's readings, of the joint law fitted to the readings before.

    Raises:
        ConfigError: too few readings are left to fit.
    """
    last: NDArray[np.bool_] = np.zeros(len(runs), dtype=bool)
    for run in set(runs.run.tolist()):
        places = np.flatnonzero(runs.run == run)
        in_order = places[np.argsort(runs.N[places], kind="stable")]
        last[in_order[len(places) - max(round(share * len(places)), 1) :]] = True
    return _misses(runs, last)


def _misses(runs: Runs, held_out: NDArray[np.bool_]) -> Misses:
    kept, left = runs.where(~held_out), runs.where(held_out)
    predicted = JointFit(bootstraps=0).fit(kept).predict(P=left.P, N=left.N)

    def median_error(predicted: Floats, observed: Floats) -> float:
        return float(np.median(np.abs(predicted - observed) / np.abs(observed)))

    L_ft, L_f = median_error(predicted.L_ft.value, left.L_ft), median_error(predicted.L_f.value, left.L_f)
    return Misses(L_ft=L_ft, L_f=L_f, readings=len(left))


class Fit(Protocol[R2]):
    """What all fits have in common."""

    params_: dict[str, float]
    spread_: dict[str, tuple[float, float]]
    leverage_: Leverage
    r2_: R2
    runs_: int
    residuals_: Floats
    draws_: Floats


def fit_laws(runs: Runs, *, bootstraps: int = 200, seed: int = 0) -> Laws:
    """Fit the line, the joint law if the runs determine one, and its errors on held-out readings.

    Raises:
        ConfigError: not even a line can be fitted.
    """
    line = LineFit(bootstraps=bootstraps, seed=seed).fit(runs)
    joint = or_reason(lambda: JointFit(bootstraps=bootstraps, seed=seed).fit(runs))
    if isinstance(joint, str):
        return {"format": FORMAT, "data": described(runs), "line": shared(line), "joint": joint}
    record: JointRecord = {
        **shared(joint),
        "weak": joint.weak_,
        "condition": joint.condition_,
        "theta": joint.theta_.tolist(),
        "center": (joint.surface_.mean_log_P, joint.surface_.mean_log_N),
    }
    errors: HeldOut = {
        "one_rank": or_reason(lambda: [{"P": size, **of} for size, of in leave_one_rank_out(runs).items()]),
        "last_30_percent": or_reason(lambda: last_steps(runs)),
    }
    return {"format": FORMAT, "data": described(runs), "line": shared(line), "joint": record, "held_out": errors}


def write_laws(path: Path, laws: Mapping[str, object]) -> None:
    """Write the result of `fit_laws` or `fit_replay_law`; raises `StorageError` if the disk is full or read-only."""
    write_json(path, laws)


def read_laws(path: Path) -> tuple[LineFit, JointFit | str]:
    """The fits of a laws.json, ready to predict: the line, and the joint law or the reason why there is none.

    Raises:
        SourceNotFound, SourceError: as `read_file` raises them.
        ConfigError: the file contains the replay law.
    """
    content = read_file(path)
    if "replay" in content:
        raise ConfigError(f"{path} contains the replay law", "give --lambda (0 for no replay) with --P and --N")
    laws = laws_of(path, content, Laws)
    with damaged_json(path, AGAIN):
        line, joint = LineFit(), laws["joint"]
        restore(line, laws["line"], parameters=2)
        line.law_ = LineLaw(**line.params_)
        if isinstance(joint, str):
            return line, joint
        fit = JointFit()
        restore(fit, joint, parameters=len(NAMES))
        empty = np.empty(0)
        fit.surface_ = Surface(p=empty, n=empty, mean_log_P=joint["center"][0], mean_log_N=joint["center"][1])
        fit.law_, fit.slope_ = JointLaw(**fit.params_), fit.params_["c_f_ft"]
        fit.theta_, fit.weak_, fit.condition_ = vector(joint["theta"], len(NAMES)), joint["weak"], joint["condition"]
        fit.first_N_, fit.base_ = laws["data"]["N"][0], laws["data"]["base"]
    return line, fit


def read_file(path: Path) -> dict[str, JsonValue]:
    """The content of a laws.json; raises `SourceNotFound`, or `SourceError` if it is not of this version."""
    if not path.is_file():
        raise SourceNotFound(f"no laws at {path}", "create them with: keeptune laws fit RUNS --out laws.json")
    laws: JsonValue = read_json(path, AGAIN)
    if not isinstance(laws, dict) or "format" not in laws:
        raise SourceError(f"{path} is not a laws.json", AGAIN)
    if laws["format"] != FORMAT:
        raise SourceError(f"{path} has format {laws['format']}; this version reads format {FORMAT}", AGAIN)
    return laws


def laws_of(path: Path, content: dict[str, JsonValue], kind: type[_Kind]) -> _Kind:
    """What `read_file` returned, as its type; raises `SourceError` with the field that does not fit."""
    with damaged_json(path, AGAIN):
        return from_json(kind, content)


def predict_losses(laws: str, *, P: float, N: float, interval: float) -> Bands:
    """Predict both losses by the joint law of a laws.json, or by a published law, which has no intervals.

    Raises:
        ConfigError: there is no joint law, or it is not defined there.
        SourceError: no such file, or not a laws.json.
    """
    if laws in PUBLISHED:
        return Bands(*map(Band, PUBLISHED[laws].predict(P=P, N=N)))
    joint = read_laws(Path(laws))[1]
    if isinstance(joint, str):
        raise ConfigError(f"{laws} has no joint law: {joint}", "give --L-ft, a task loss, to predict by the line")
    return joint.predict(P=P, N=N, interval=interval)


def predict_on_line(laws: str, *, L_ft: float, interval: float) -> Band:
    """Predict L_f at a task loss, by the line of a laws.json or of a published law.

    Raises:
        ConfigError: the task loss is not above 0.
        SourceError: no such file, or not a laws.json.
    """
    log_of(L_ft, "task loss")
    if laws in PUBLISHED:
        return Band(PUBLISHED[laws].line.predict(L_ft=L_ft))
    return read_laws(Path(laws))[0].predict(L_ft=L_ft, interval=interval)


def beyond(laws: str, *, P: float, N: float) -> str | None:
    """A warning if P or N lies outside the runs of a laws.json, read before; None inside, or for a published law."""
    if laws in PUBLISHED:
        return None
    data = laws_of(Path(laws), read_file(Path(laws)), _OfAnyKind)["data"]
    sizes, (first, last) = data["P"], data["N"]
    if sizes[0] <= P <= sizes[-1] and first <= N <= last:
        return None
    P_range = f"P from {sizes[0]:,.0f} to {sizes[-1]:,.0f}"
    return f"Extrapolated: the runs have {P_range} and N from {first:.0f} to {last:.0f}"


def described(runs: Runs) -> DataRecord:
    """The readings, as recorded in laws.json."""
    return {
        "readings": len(runs),
        "runs": runs.count,
        "dropped": runs.dropped,
        "left_out": runs.left_out,
        "P": runs.sizes,
        "N": (float(runs.N.min()), float(runs.N.max())),
        "base": runs.base,
    }


def shared(fit: Fit[R2]) -> FitRecord[R2]:
    """The common part of a fit."""
    ordered = np.sort(np.atleast_2d(fit.residuals_), axis=1)
    places = thinned(ordered.shape[1], _RESIDUALS)
    return {
        "params": fit.params_,
        "spread": fit.spread_,
        "r2": fit.r2_,
        "runs": fit.runs_,
        "information": fit.leverage_.of_runs.tolist(),
        "residuals": ordered[:, places].tolist(),
        "draws": fit.draws_.tolist(),
    }


def restore(fit: Fit[R2], kept: FitRecord[R2], *, parameters: int) -> None:
    """Restore the output of `shared`. Raises `ValueError` for arrays of another number of parameters."""
    information, draws = np.array(kept["information"]), np.array(kept["draws"])
    if information.shape[1:] != (parameters, parameters) or draws.shape[1:] not in ((), (parameters,)):
        raise ValueError(f"information and draws are not of {parameters} parameters")
    fit.params_, fit.spread_ = kept["params"], kept["spread"]
    fit.leverage_, fit.draws_ = Leverage(of_runs=information), draws
    fit.r2_, fit.runs_, fit.residuals_ = kept["r2"], kept["runs"], np.array(kept["residuals"])


def vector(theta: list[float], parameters: int) -> Floats:
    """The fitted numbers. Raises `ValueError` for another number of them."""
    if len(theta) != parameters:
        raise ValueError(f"theta holds {len(theta)} numbers, not {parameters}")
    return np.array(theta)


def or_reason(compute: Callable[[], _Result]) -> _Result | str:
    """The result, or the reason of the `ConfigError` that prevents it."""
    try:
        return compute()
    except ConfigError as error:
        return error.what
