"""Runs of the small models as curves, and what a run has forgotten when it has learned a given amount.

A run is the rows of one seed and one setting, in the order of the training. Every row has a `new_loss`, an `old_loss`
and the base's losses. Forgetting is the rise of the old loss above the base's, in nats per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from common.grid import Row
from common.stats import Interval, over_seeds

Run = list[Row]
CHOOSING_SEED = 9
"""The seed that chooses rates, weights or a target, where one does; it is never reported."""
TARGET_STEP = 0.05
"""Targets that are chosen from rows are multiples of this, nats per token."""


def values(rows: list[Row], column: str, **wanted: Any) -> list[Any]:
    """The different values of a column in ascending order, of the rows that have the wanted values."""
    return sorted({row[column] for row in rows if all(row[name] == value for name, value in wanted.items())})


def runs(rows: list[Row], **wanted: Any) -> list[Run]:
    """The runs that have the wanted values. The rows of a run stand together in the csv, and start at step 0."""
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
    """`of` the run where its new loss first passes `target`, linear between two readings; None if it never does.

    A run with interpolation is read along the line of weights from the base to its end, not along the training.
    """
    path = interpolation_path(run) if any(row.get("share", 1.0) < 1.0 for row in run) else run
    for before, after in pairwise(path):
        if after["new_loss"] <= target < before["new_loss"]:
            part = (before["new_loss"] - target) / (before["new_loss"] - after["new_loss"])
            return of(before) + part * (of(after) - of(before))
    return None


def interpolation_path(run: Run) -> Run:
    """The base, the mixtures of weights by the share of the tuned model, and the end."""
    ends = [row for row in run if row.get("share", 1.0) == 1.0]
    mixed = sorted((row for row in run if row.get("share", 1.0) < 1.0), key=lambda row: row["share"])
    return [ends[0], *mixed, ends[-1]]


def by_seed(group: Sequence[Run], target: float, of: Callable[[Row], float] = forgetting) -> dict[int, float]:
    """`of` each run of one setting where it reaches the target, by seed. Runs that do not reach it are left out."""
    found = ((run[0]["seed"], at_loss(run, target, of)) for run in group)
    return {seed: value for seed, value in found if value is not None}


def paired(first: dict[int, float], second: dict[int, float], by: Callable[[float, float], float]) -> list[float]:
    """Two settings compared within each seed that both have a value for."""
    return [by(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def differences(first: dict[int, float], second: dict[int, float]) -> list[float]:
    """First minus second, within each seed."""
    return paired(first, second, lambda one, other: one - other)


def ratios(first: dict[int, float], second: dict[int, float]) -> list[float]:
    """First over second, within each seed."""
    return paired(first, second, lambda one, other: one / other)


def share_removed(kept: dict[int, float], standard: dict[int, float]) -> list[float]:
    """The share of the forgetting of standard fine-tuning that a method removes, within each seed."""
    return paired(kept, standard, lambda left, all_of_it: 1 - left / all_of_it)


def steps_of(row: Row) -> float:
    """Steps so far."""
    return float(row["step"])


def training_seconds(row: Row) -> float:
    """Processor seconds of the training so far."""
    seconds: float = row["seconds"]
    return seconds


def whole_seconds(row: Row) -> float:
    """Processor seconds of the training so far, and of making the replay rows that it used: sampling and predictions.

    Each row of a pool counts once. One row of a pool is kept out of training.
    """
    used = min(row["step"] * row["replay_rows"], row["pool_rows"] - 1)
    return training_seconds(row) + float(used * row["pool_seconds_a_row"])


def mean_at(group: Sequence[Run], target: float, of: Callable[[Row], float] = forgetting) -> Interval | None:
    """Mean over the runs that reach the target, with its interval; None if there are none."""
    reached = [value for run in group if (value := at_loss(run, target, of)) is not None]
    return over_seeds(reached) if reached else None


class Best(NamedTuple):
    """What a model forgets with the best λ."""

    lambda_: float | None
    """None if no λ reaches the target with every seed."""
    by_seed: dict[int, float]
    """Forgetting at the target, nats per token; empty if it is not reached."""

    @property
    def interval(self) -> Interval | None:
        """Mean over the seeds; None if the target is not reached."""
        return over_seeds(list(self.by_seed.values())) if self.by_seed else None


def best_at(rows: list[Row], target: float, lambdas: Sequence[float], **setting: Any) -> Best:
    """Of the λ with which every seed reaches the target, the one with the least mean forgetting there.

    It is one λ for all seeds: choosing one per seed would bias the result low.
    """
    found = []
    for lambda_ in lambdas:
        group = runs(rows, lambda_=lambda_, **setting)
        at = by_seed(group, target)
        if group and len(at) == len(group):
            found.append(Best(lambda_, at))
    return min(found, key=lambda best: sum(best.by_seed.values()) / len(best.by_seed), default=Best(None, {}))


def read_where_chosen(rows: list[Row], **place: Any) -> list[Row]:
    """The rows of the reported seeds, to be read at the new loss that runs of the choosing seed end at.

    The target is the highest last new loss of the choosing seed's runs with the wanted values, rounded up to
    `TARGET_STEP`. Without such runs, as at size smoke, rows keep the target of the grid.
    """
    ends = [run[-1]["new_loss"] for run in runs(rows, seed=CHOOSING_SEED, **place)]
    own = [row for row in rows if row["seed"] != CHOOSING_SEED]
    if not ends:
        return own
    target = round(math.ceil(max(ends) / TARGET_STEP) * TARGET_STEP, 4)
    return [{**row, "target": target} for row in own]


def kl_lambdas(rows: list[Row]) -> list[float]:
    """The λ of the KL, without the 0 of standard fine-tuning."""
    return [lambda_ for lambda_ in values(rows, "lambda_") if lambda_]
