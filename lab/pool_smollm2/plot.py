"""Figure, table and claims of how many distinct replay rows are enough for SmolLM2."""

from __future__ import annotations

import math
from typing import Any

from common.drawing import legend_below, panels
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from equal_minutes.plot import at, curve
from keeptune.plot_style import COLOURS, GREY, MARKS

FRESH, PLAIN = "kl-fresh", "plain"
PLACES = {"own_kl": "on own text", "old_kl": "on `pydoc`"}


def arms(rows: list[Row]) -> list[str]:
    """The arms: no replay, then the pools from the smallest on."""
    return sorted(
        values(rows, "arm"), key=lambda arm: (arm != PLAIN, arm == FRESH, int(arm[3:]) if arm[3:].isdigit() else 0)
    )


def drifts(rows: list[Row], seed: int, column: str) -> dict[str, float]:
    """Drift of every arm of a seed, read at the least task loss that all of them reach."""
    curves = {arm: curve(rows, arm, seed) for arm in arms(rows)}
    if not all(curves.values()):
        return {}
    target = max(min(row["task_loss"] for row in readings) for readings in curves.values())
    found = {arm: at(readings, target, math.inf) for arm, readings in curves.items()}
    return {arm: reading[column] for arm, reading in found.items() if reading}


def kept_back(rows: list[Row], arm: str, column: str) -> list[float]:
    """What reuse brings back: drift above that with fresh text, as a share of that without replay, for each seed."""
    each = [drifts(rows, seed, column) for seed in values(rows, "seed")]
    return [(of[arm] - of[FRESH]) / of[PLAIN] for of in each if {arm, FRESH, PLAIN} <= of.keys()]


def figure(rows: list[Row]) -> Any:
    """Drift on two texts against the task loss, a colour an arm, a line a seed."""
    drawn, axes = panels(2.9)
    for axis, (column, where) in zip(axes, PLACES.items(), strict=True):
        for arm, colour, mark in zip(arms(rows), (GREY, *COLOURS), MARKS, strict=False):
            label: str | None = "no replay" if arm == PLAIN else arm.replace("kl-", "distinct rows: ")
            for seed in values(rows, "seed"):
                own = curve(rows, arm, seed)
                points = [row["task_loss"] for row in own], [row[column] for row in own]
                axis.plot(*points, color=colour, marker=mark, markersize=2.5, label=label)
                label = None
        axis.invert_xaxis()
        axis.set(xlabel="task loss, nats per token", title=f"drift {where}")
    axes[0].set_ylabel("KL(base‖tuned), nats per token")
    legend_below(drawn, axes[0], ncols=3)
    return drawn


def table(rows: list[Row]) -> str:
    """Each arm at the least task loss that all reach."""
    lines = []
    for arm in arms(rows):
        own = next(row for row in rows if row["arm"] == arm)
        count = "–" if arm == PLAIN else f"{(own['pool_rows'] - own['drift_rows']) * own['replay_length']:,}"
        cells = []
        for column in PLACES:
            found = [of[arm] for seed in values(rows, "seed") if arm in (of := drifts(rows, seed, column))]
            cells.append(format_interval(over_seeds(found) if found else None))
        lines.append(["no replay" if arm == PLAIN else arm, count, *cells])
    return markdown(["", "distinct tokens", *(f"drift {where}" for where in PLACES.values())], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Our own question: how little own text is enough for a published model?"""
    _, *reused, _ = arms(rows) if len(arms(rows)) > 2 else (PLAIN, FRESH)
    if not reused:
        return []
    small, large = reused[0], reused[-1]
    what = "drift above that with fresh text, as a share of that without replay"
    return measured(
        *(
            claim_over_seeds(
                f"{large[3:]} rows of own text, used again, are as good as fresh ones for SmolLM2, {where}",
                f"{what}, {where}",
                kept_back(rows, large, column),
                below=0.05,
            )
            for column, where in PLACES.items()
        ),
        claim_over_seeds(
            f"{small[3:]} rows are not enough for SmolLM2",
            f"{what}, on `pydoc`",
            kept_back(rows, small, "old_kl"),
            above=0.05,
        ),
    )
