"""`runs.jsonl`: one row for each reading of the meter, what the laws read and a colleague can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.codec import from_json
from keeptune.errors import SourceError
from keeptune.storage import append_line, read_lines, write_text

FILE = "runs.jsonl"


class Ends(TypedDict):
    """A forecast with its 90 % interval, nats per token."""

    value: float
    low: float
    high: float


class Forecast(TypedDict):
    """Where a run will end, as one of its rows says: of each measure an interval, or why there is none."""

    share: float
    """Of the run, at which it was made."""
    l_ft: Ends | str
    l_f_rise: Ends | str
    kl: Ends | str
    beyond: NotRequired[list[str]]
    """The bounds that the whole interval lies beyond."""
    stop: NotRequired[str | None]
    """Why to end the run: the reading before was beyond the same bound."""


Lambda = TypedDict("Lambda", {"lambda": float})
"""A key that no class can name."""


class Reading(Lambda):
    """A row of `runs.jsonl`; losses and KL in nats per token. `DriftCallback` says what the fields are."""

    step: int
    P: int
    N: int
    L_ft: float | None
    L_ft_on: str
    L_f: float
    L_f_base: float
    L_f_on: str
    KL: float
    replay_tokens: int
    task_tokens: int
    seconds: float
    tokens_per_second: float | None
    seed: int
    objective: str
    learning_rate: float
    base: str
    machine: str
    device: str
    versions: dict[str, str]
    budget: NotRequired[float]
    model_step: NotRequired[int]
    forecast: NotRequired[Forecast | None]


def append_row(path: Path, row: Reading) -> None:
    """Append one reading."""
    append_line(path, json.dumps(row, allow_nan=False))


def read_rows(path: Path) -> list[Reading]:
    """All readings of a run, in the order of writing; a last line cut short by a kill is left out.

    Raises:
        SourceError: a line in the middle is not JSON, or is no reading.
    """
    rows = read_lines(path) if path.is_file() else []
    for number, row in enumerate(rows, start=1):
        try:
            from_json(Reading, row)
        except ValueError as error:
            what = f"{path} is damaged: line {number} is not a reading ({error})"
            raise SourceError(what, "start the run anew (--overwrite)") from error
    # As they were written: with the keys of another version, and in their order.
    return rows


def measured_loss(row: Reading) -> float:
    """The task loss of a row. Raises `SourceError` if the run did not measure it."""
    if row["L_ft"] is None:
        raise SourceError(f"the reading of step {row['step']} has no L_ft", "run it with held-out documents")
    return row["L_ft"]


def keep_earlier_run(path: Path) -> None:
    """Before a run that starts at its first step: rename the readings of an earlier run to `runs-1.jsonl` and so on."""
    if not path.is_file():
        return
    number = 1
    while (earlier := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(earlier)


def rewind(path: Path, step: int) -> None:
    """Drop the readings after `step`, and that of a best model, which the run will take again."""
    kept = [row for row in read_rows(path) if row["step"] <= step and "model_step" not in row]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def saved_step(args: Any, state: Any) -> int:
    """After how many steps the model was that the trainer holds at the end: the last, unless it loaded the best."""
    if args.load_best_model_at_end and state.best_model_checkpoint is not None:
        # Not `best_global_step`: that one may have had no checkpoint.
        return int(Path(state.best_model_checkpoint).name.rpartition("-")[2])
    return int(state.global_step)
