"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/replay_ratio/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Run, by_seed, mean_at, paired, runs, told, whole_seconds
from drawing import logarithmic, note, whiskers
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by replay rows a step; right, forgetting against processor seconds; both at the target."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import COLOURS, MARKS, PAGE  # noqa: PLC0415

    target, counts, weights = rows[0]["target"], values(rows, "replay_rows"), values(rows, "lambda_")
    drawn, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.2), sharey=True, width_ratios=(1, 1.25))
    for lambda_, colour, mark in zip(weights, COLOURS, MARKS, strict=False):
        look, places = {"color": colour, "marker": mark}, []
        for count in counts:
            forgotten, seconds = at(rows, count, lambda_), at(rows, count, lambda_, whole_seconds)
            if forgotten is not None and seconds is not None:
                places.append((seconds.value, forgotten))
                note(right, seconds.value, forgotten.value, str(count), color=colour)
        whiskers(left, [(count, at(rows, count, lambda_)) for count in counts], label=f"λ = {lambda_:g}", **look)
        whiskers(right, places, label=f"λ = {lambda_:g}", **look)
        for count in (count for count in counts if at(rows, count, lambda_) is None):
            left.annotate(
                f"λ = {lambda_:g}: not reached",
                (count, 0.03),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="center",
                fontsize=6.5,
                color=colour,
            )
    left.set_xscale("log")
    left.set_xticks(counts, [str(count) for count in counts])
    left.minorticks_off()
    logarithmic(left, "y")
    left.set_xlabel(f"replay rows a step, beside {rows[0]['batch']} task rows")
    left.set_ylabel("forgetting: rise of the old loss,\nnats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {target:g}")
    left.legend(loc="lower right", bbox_to_anchor=(1, 0.35))
    right.margins(x=0.1)
    logarithmic(right, "x")
    right.set_xlabel("processor seconds to get there, sampling counted in")
    right.set_title("what it costs; numbers are replay rows a step")
    return drawn


def values(rows: list[Row], column: str) -> list[Any]:
    """Of a column, from the least on."""
    return sorted({row[column] for row in rows})


def group(rows: list[Row], count: int, lambda_: float) -> list[Run]:
    """The runs of one setting."""
    return runs(rows, replay_rows=count, lambda_=lambda_)


def at(rows: list[Row], count: int, lambda_: float, *of: Any) -> Interval | None:
    """Forgetting, or what else is asked for, at the target."""
    return mean_at(group(rows, count, lambda_), rows[0]["target"], *of)[0]


def frontier(rows: list[Row]) -> list[tuple[int, float]]:
    """Settings, rows and λ, that no other beats in both forgetting and seconds, on the means; the quickest first."""
    found = []
    for count in values(rows, "replay_rows"):
        for lambda_ in values(rows, "lambda_"):
            forgotten, seconds = at(rows, count, lambda_), at(rows, count, lambda_, whole_seconds)
            if forgotten is not None and seconds is not None:
                found.append((seconds.value, forgotten.value, (count, lambda_)))
    best, least = [], float("inf")
    for _, forgotten, setting in sorted(found):
        if forgotten < least:
            best.append(setting)
            least = forgotten
    return best


def table(rows: list[Row]) -> str:
    """Each setting at the target loss."""
    target, best = rows[0]["target"], frontier(rows)
    lines = [
        f"| λ | replay rows a step | forgetting at a new loss of {target:g} | steps | seconds, training "
        "| seconds, with sampling | a best buy |",
        "|---|---|---|---|---|---|---|",
    ]
    for lambda_ in values(rows, "lambda_"):
        for count in values(rows, "replay_rows"):
            steps = at(rows, count, lambda_, lambda row: row["step"])
            taken = "–" if steps is None else f"{steps.value:.0f}"
            alone, whole = at(rows, count, lambda_, lambda row: row["seconds"]), at(rows, count, lambda_, whole_seconds)
            mark = "yes" if (count, lambda_) in best else ""
            numbers = f"{told(at(rows, count, lambda_))} | {taken} | {told(alone, 1)} | {told(whole, 1)}"
            lines.append(f"| {lambda_:g} | {count} | {numbers} | {mark} |")
    return "\n".join(
        [*lines, "", "A best buy: no other setting is both quicker, sampling counted in, and forgets less."]
    )


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper leaves open; differences and ratios are taken within a seed."""
    target, strong = rows[0]["target"], 10.0

    def forgotten(count: int, lambda_: float) -> dict[int, float]:
        return by_seed(group(rows, count, lambda_), target)

    def more(first: tuple[int, float], second: tuple[int, float]) -> list[float]:
        return paired(forgotten(*first), forgotten(*second), lambda one, other: one - other)

    times = paired(
        by_seed(group(rows, 16, strong), target, whole_seconds),
        by_seed(group(rows, 4, strong), target, whole_seconds),
        lambda many, few: float(many / few),
    )
    wanted: list[tuple[str, str, list[float], dict[str, float]]] = [
        (
            "one replay row a step keeps less than sixteen",
            "forgetting, 1 row minus 16 rows, λ = 10, nats",
            more((1, strong), (16, strong)),
            {"above": 0.0},
        ),
        (
            "four times as many replay rows as task rows add little",
            "forgetting, 16 rows minus 64 rows, λ = 10, nats",
            more((16, strong), (64, strong)),
            {"below": 0.02},
        ),
        (
            "a weight ten times as large keeps more than sixteen times the rows",
            "forgetting, 64 rows at λ = 1 minus 4 rows at λ = 10, nats",
            more((64, 1.0), (4, strong)),
            {"above": 0.0},
        ),
        (
            "a quarter as many replay rows as task rows is quicker than as many",
            "processor seconds, sampling counted in, 16 rows / 4 rows, λ = 10",
            times,
            {"above": 1.0},
        ),
    ]
    return [
        Claim(claim=claim, measure=measure, ours=over_seeds(numbers), **bound)
        for claim, measure, numbers, bound in wanted
        if np.size(numbers)
    ]


if __name__ == "__main__":
    draw(HERE, figure)
