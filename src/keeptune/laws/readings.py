"""The readings that laws are fitted to: `runs.jsonl` of `keeptune tune`, or a csv with P, N, L_ft and L_f."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.forms import Floats
from keeptune.storage import read_lines

COLUMNS = ("P", "N", "L_ft", "L_f")
# A law holds for one base and one training method; runs that differ in these columns lie on different curves.
_SAME = ("base", "data", "objective", "learning_rate", "L_ft_on", "L_f_on")
_REPLAY = ("lambda", "replay_tokens")
_NUMBERS = ("learning_rate", *_REPLAY)
# Columns that must be above 0, and what to give.
_POSITIVE = {
    "P": "P, the number of tuned parameters, above 0",
    "L_ft": "the task loss in nats per token",
    "L_f": "the forgetting loss itself, not its rise above the base's",
}
# A file, and its rows with whatever columns they have.
_Row = Mapping[str, object]
_Table = tuple[Path, Sequence[_Row]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Readings of training runs, as columns of one length with one value per reading."""

    P: Floats
    """Tuned parameters."""
    N: Floats
    """Update steps, above 0."""
    L_ft: Floats
    """Task loss, nats per token."""
    L_f: Floats
    """Forgetting loss, nats per token."""
    run: NDArray[np.int64]
    """The run of each reading."""
    dropped: int = 0
    """Number of readings left out because a value is missing, NaN or infinite."""
    left_out: int = 0
    """Number of readings left out because they are too early."""
    base: str | None = None
    """The base's fingerprint, if the files contain it."""

    def __len__(self) -> int:
        return len(self.P)

    @property
    def sizes(self) -> list[float]:
        """The distinct P, ascending; for LoRA, one per rank."""
        return sorted(set(self.P.tolist()))

    @property
    def count(self) -> int:
        """Number of runs."""
        return len(set(self.run.tolist()))

    def where(self, mask: NDArray[np.bool_]) -> Self:
        """Only the readings where `mask` is true."""

        def chosen(of: Any) -> Any:
            return of[mask] if isinstance(of, np.ndarray) else of

        return type(self)(**{name: chosen(of) for name, of in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayRuns(Runs):
    """Readings of runs that differ in their replay."""

    lambda_: Floats
    """Weight of the replay term, constant within a run."""
    tokens: Floats
    """Distinct replay tokens; 0 if λ is 0."""
    L_f_base: float
    """The base's own forgetting loss on the same text, nats per token."""

    @property
    def cells(self) -> list[tuple[float, float]]:
        """The distinct (λ, replay tokens), ascending."""
        return sorted(set(zip(self.lambda_.tolist(), self.tokens.tolist(), strict=True)))


def read_runs(paths: Iterable[str | Path], *, after: int = 0) -> Runs:
    """Read runs with one λ and one amount of replay.

    Args:
        paths: `runs.jsonl` files, folders that contain one, or csv files with the columns P, N (or step), L_ft, L_f
            and, optionally, run, seed, base, data, objective, learning_rate, lambda, replay_tokens. Rows of one file
            with the same P, run and seed are one run.
        after: leave out readings up to this step; the paper leaves out 50 of 260. The base itself (step 0) is always
            left out, because the laws begin at the first step.

    Raises:
        SourceNotFound: no such file.
        SourceError: a file is not such a table, or no reading can be used.
        ConfigError: the runs have different bases or training methods, or `after` is below 0.
    """
    tables = [_table(path) for path in paths]
    _refuse_mixtures(tables, (*_SAME, *_REPLAY))
    return _usable(tables, after, _values)[0]


def read_any_runs(paths: Iterable[str | Path], *, after: int = 0) -> Runs | ReplayRuns:
    """Read runs as `read_runs` does. Runs that differ in λ or replay tokens are returned as `ReplayRuns`.

    `ReplayRuns` need the columns lambda, replay_tokens (in rows with λ above 0) and L_f_base. Raises as `read_runs`
    does, and `ConfigError` if λ changes within a run.
    """
    tables = [_table(path) for path in paths]
    _refuse_mixtures(tables, _SAME)
    if all(len(_distinct(tables, name)) <= 1 for name in _REPLAY):
        return _usable(tables, after, _values)[0]
    plain, (lambda_, tokens, L_f_base) = _usable(tables, after, _replay_values)
    runs = ReplayRuns(**vars(plain), lambda_=lambda_, tokens=tokens, L_f_base=float(np.median(L_f_base)))
    if any(len(runs.where(np.equal(runs.run, run)).cells) > 1 for run in set(runs.run.tolist())):
        raise ConfigError(
            "λ or the replay tokens change within a run, as they do with a budget",
            "fit the replay law to runs with a fixed --lambda; in a csv, number the runs in a column run",
        )
    return runs


def _usable(
    tables: Sequence[_Table], after: int, values_of: Callable[[Path, int, _Row], list[float]]
) -> tuple[Runs, Floats]:
    """The usable readings, and the values of `values_of` after the first four."""
    if after < 0:
        raise ConfigError(f"--after is {after}", "give 0 or more")
    numbers: dict[tuple[object, ...], int] = {}
    kept, dropped, left_out = [], 0, 0
    for path, rows in tables:
        for place, row in enumerate(rows, start=1):
            values = values_of(path, place, row)
            if not all(map(math.isfinite, values)):
                dropped += 1
            elif values[1] <= after:
                left_out += 1
            else:
                key = (path, values[0], str(row.get("run")), str(row.get("seed")))
                kept.append((numbers.setdefault(key, len(numbers)), *values))
    if not kept:
        raise SourceError(
            f"no usable reading: {dropped} without a number in {', '.join(COLUMNS)}, {left_out} too early",
            "give runs.jsonl of runs with an evaluation data set and --drift-every, or a csv with those columns",
        )
    run, *columns = np.array(kept, dtype=np.float64).T
    P, N, L_ft, L_f, *more = columns
    base = next((str(row["base"]) for _, rows in tables for row in rows if row.get("base")), None)
    counts = {"dropped": dropped, "left_out": left_out}
    runs = Runs(P=P, N=N, L_ft=L_ft, L_f=L_f, run=run.astype(np.int64), base=base, **counts)
    return runs, np.array(more, dtype=np.float64)


def _table(given: str | Path) -> _Table:
    path = Path(given)
    path = path / "runs.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise SourceNotFound(f"there are no readings at {path}", "give runs.jsonl, the folder of a run, or a csv")
    if path.suffix == ".json":
        raise SourceError(f"{path} is not a table of readings", "give the readings themselves: runs.jsonl or a csv")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        else:
            rows = read_lines(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is not a table of readings: {error}", "give runs.jsonl or a csv") from error
    if not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{path}: a line is not a JSON object", "give runs.jsonl as `keeptune tune` writes it")
    # The model that a run saves may be of an earlier step, which has a row of its own.
    return path, [row for row in rows if row.get("model_step") is None]


def _cell(path: Path, place: int, row: _Row, name: str, columns: str) -> float:
    """One number of a row; NaN for a value that the run did not measure."""
    if name not in row:
        raise SourceError(f"{path}, row {place}: no column {name}", columns)
    given = row[name]
    if given is None or given == "":
        return math.nan
    if not isinstance(given, str | int | float):
        raise SourceError(f"{path}, row {place}: {name} is of type {type(given).__name__}", "give numbers")
    try:
        value = float(given)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{path}, row {place}: {name}: {error}", "give numbers") from error
    if value <= 0 and name in _POSITIVE:
        raise SourceError(f"{path}, row {place}: {name} = {given}", f"give {_POSITIVE[name]}")
    return value


def _values(path: Path, place: int, row: _Row) -> list[float]:
    """P, N, L_ft and L_f."""
    names = ("P", "N" if "N" in row else "step", "L_ft", "L_f")
    return [_cell(path, place, row, name, f"name the columns {', '.join(COLUMNS)}") for name in names]


def _replay_values(path: Path, place: int, row: _Row) -> list[float]:
    """`_values`, then λ, distinct replay tokens and L_f_base."""
    columns = "runs that differ in λ or replay tokens need lambda, replay_tokens and L_f_base"
    weight = _cell(path, place, row, "lambda", columns)
    tokens = _cell(path, place, row, "replay_tokens", columns) if weight else 0.0
    L_f_base = _cell(path, place, row, "L_f_base", columns)
    if min(weight, tokens, L_f_base) < 0 or (weight and tokens == 0):
        given = f"lambda = {weight:g}, replay_tokens = {tokens:g}, L_f_base = {L_f_base:g}"
        raise SourceError(f"{path}, row {place}: {given}", "give 0 or more; with λ above 0, the tokens of the pool")
    return [*_values(path, place, row), weight, tokens, L_f_base]


def _refuse_mixtures(tables: Sequence[_Table], names: Sequence[str]) -> None:
    for name in names:
        values = _distinct(tables, name)
        if len(values) > 1:
            (one, first), (other, second), *_ = values.items()
            what = f"the runs differ in {name}: {one} in {first}, {other} in {second}"
            raise ConfigError(what, "a law holds for one base and one training method: fit them separately")


def _distinct(tables: Sequence[_Table], name: str) -> dict[str, Path]:
    """The distinct values of a column, each with a file that contains it."""
    values: dict[str, Path] = {}
    for path, value in ((path, row.get(name)) for path, rows in tables for row in rows):
        if value not in (None, ""):
            text = str(value)
            # One text for 0, 0.0 and "0".
            with suppress(TypeError, ValueError):
                text = f"{float(text):g}" if name in _NUMBERS else text
            values.setdefault(text, path)
    return values
