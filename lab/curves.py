"""Runs of the small-model experiments as curves, and what a run has forgotten when it has learned so much.

A run is the rows of one seed and one setting, in the order of the training; every row has a `new_loss`, an `old_loss`
and the base's of both. Forgetting is the rise of the old loss over the base's, nats per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from grid import Row
from stats import Interval, over_seeds

Run = list[Row]


def runs(rows: list[Row], **wanted: Any) -> list[Run]:
    """The runs that have these values in these columns, a list of rows each, by seed and whatever else tells them
    apart: rows of a run stand together in the csv, and a run starts at step 0."""
    found: list[Run] = []
    for row in rows:
        if row["step"] == 0:
            found.append([])
        found[-1].append(row)
    return [run for run in found if all(run[0][column] == value for column, value in wanted.items())]


def forgetting(row: Row) -> float:
    """Rise of the old loss, nats per token."""
    rise: float = row["old_loss"] - row["base_old_loss"]
    return rise


def at_loss(run: Run, target: float, of: Callable[[Row], float] = forgetting) -> float | None:
    """`of` a run where its new loss first passes `target`, straight between two readings; None where it never does.

    A run that mixes its end with the base is a path from the base to the end, whatever the training's own path was.
    """
    path = mixed_path(run) if any(row.get("share", 1.0) < 1.0 for row in run) else run
    for before, after in pairwise(path):
        if after["new_loss"] <= target < before["new_loss"]:
            part = (before["new_loss"] - target) / (before["new_loss"] - after["new_loss"])
            return of(before) + part * (of(after) - of(before))
    return None


def mixed_path(run: Run) -> Run:
    """The base, the mixtures by their share, the end."""
    ends = [row for row in run if row.get("share", 1.0) == 1.0]
    return [
        ends[0],
        *sorted((row for row in run if row.get("share", 1.0) < 1.0), key=lambda row: row["share"]),
        ends[-1],
    ]


def by_seed(group: Sequence[Run], target: float, of: Callable[[Row], float] = forgetting) -> dict[int, float]:
    """`of` each run of one setting where it reaches the target, by the run's seed; without those that do not."""
    found = ((run[0]["seed"], at_loss(run, target, of)) for run in group)
    return {seed: value for seed, value in found if value is not None}


def paired(first: dict[int, float], second: dict[int, float], by: Callable[[float, float], float]) -> list[float]:
    """Two settings against each other, a seed at a time, where both have a value."""
    return [by(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def rows_used(row: Row) -> int:
    """Rows of the pool replayed by now, each counted once; one row of a pool is kept out of training."""
    used: int = min(row["step"] * row["replay_rows"], row["pool_rows"] - 1)
    return used


def whole_seconds(row: Row) -> float:
    """Processor seconds of the training so far and of making what it replayed: its sampling, the base's predictions."""
    total: float = row["seconds"] + rows_used(row) * row["pool_seconds_a_row"]
    return total


def mean_at(
    group: Sequence[Run], target: float, of: Callable[[Row], float] = forgetting
) -> tuple[Interval | None, int]:
    """Mean over runs that reach the target, with its interval, and how many do; None where none does."""
    reached = [value for run in group if (value := at_loss(run, target, of)) is not None]
    return (over_seeds(reached) if reached else None), len(reached)


class Best(NamedTuple):
    """What a model forgets under the λ that suits it."""

    lambda_: float | None
    """None where no λ reaches the target with every seed."""
    by_seed: dict[int, float]
    """Forgetting at the target, nats per token; empty where it is not reached."""

    @property
    def interval(self) -> Interval | None:
        """Mean over the seeds; None where the target is not reached."""
        return over_seeds(list(self.by_seed.values())) if self.by_seed else None


def best_at(rows: list[Row], target: float, lambdas: Sequence[float], **setting: Any) -> Best:
    """Of the λ with which every seed learns the target, the one that forgets least there on the mean over seeds.

    One λ for all seeds: the least of each seed's own would be low by their noise.
    """
    found = []
    for lambda_ in lambdas:
        group = runs(rows, lambda_=lambda_, **setting)
        at = {run[0]["seed"]: value for run in group if (value := at_loss(run, target)) is not None}
        if group and len(at) == len(group):
            found.append(Best(lambda_, at))
    return min(found, key=lambda best: sum(best.by_seed.values()) / len(best.by_seed), default=Best(None, {}))


def told(interval: Interval | None, digits: int = 3) -> str:
    """An interval for a table: `0.113 [0.101, 0.125]`."""
    if interval is None:
        return "not reached"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits}f}"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
