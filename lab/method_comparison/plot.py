"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/method_comparison/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Run, at_loss, forgetting, mean_at, runs, told
from grid import Row, draw
from stats import Claim, over_seeds

HERE = Path(__file__).resolve().parent
NAMES = {
    "standard": "standard",
    "finch": "FINCH schedule",
    "lora": "LoRA",
    "osft": "OSFT",
    "interpolation": "interpolation to the base",
    "kl_task": "KL on the task's text",
    "replace": "old rows in the batch",
    "ntp_real": "next-token loss, old text",
    "ntp_self": "next-token loss, self-replay",
    "jensen_shannon_self": "Jensen–Shannon, self-replay",
    "reverse_kl_self": "reverse KL, self-replay",
    "kl_real": "KL, old text",
    "kl_self": "KL, self-replay",
}
FROZEN = " (embeddings and head frozen, and rates at the edge of the range tried)"
"""What LoRA and OSFT differ in from standard fine-tuning beside the method."""
DRAWN_AS_CURVES = ("standard", "lora", "interpolation", "replace", "ntp_self", "kl_self")


def figure(rows: list[Row]) -> Any:
    """Left, forgetting along the learning; right, forgetting where each method has learned the same."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, COLOURS, GREY, MARKS, PAGE  # noqa: PLC0415

    target = rows[0]["target"]
    drawn, (curves, points) = plt.subplots(1, 2, figsize=(PAGE, 3.2), width_ratios=(1.15, 1))
    styles = zip(DRAWN_AS_CURVES, COLOURS, MARKS, strict=False)
    for method, colour, mark in styles:
        for number, run in enumerate(runs(rows, method=method)):
            path = path_of(run)
            label = NAMES[method] if number == 0 else None
            curves.plot(*path, color=colour, linewidth=0.9, marker=mark, markevery=4, markersize=2.6, label=label)
    curves.axvline(target, color=GREY, linewidth=0.8, linestyle="--")
    curves.invert_xaxis()
    curves.set_xlabel("loss on the new task, nats per token →")
    curves.set_ylabel("forgetting: rise of the old loss, nats per token")
    curves.set_title("along the training, a line a seed")
    curves.legend()
    order = sorted(NAMES, key=lambda method: place(rows, method, target))
    for height, method in enumerate(order):
        values = reached(rows, method, target)
        points.plot(values, [height] * len(values), "o", color=BLUE, markersize=3, alpha=0.5)
        interval = over_seeds(values) if values else None
        if interval is not None and interval.low is not None:
            points.plot([interval.low, interval.high], [height, height], color=BLUE, linewidth=1.2)
            points.plot(interval.value, height, "|", color=BLUE, markersize=9)
        if not values:
            points.text(0.02, height, "does not learn so much", fontsize=6.5, va="center", color=GREY)
    points.axvline(0, color=GREY, linewidth=0.8)
    points.set_yticks(range(len(order)), [NAMES[method] for method in order])
    points.set_ylim(-0.7, len(order) - 0.3)
    points.set_xlabel("forgetting, nats per token")
    points.set_title(f"at a new loss of {target:g}, 95 % intervals")
    return drawn


def path_of(run: Run) -> tuple[list[float], list[float]]:
    """New loss and forgetting of the points of a run, or of its mixtures with the base, by the share of either."""
    mixed = [row for row in run if row["share"] < 1.0]
    path = sorted(mixed, key=lambda row: row["share"]) if mixed else run[1:]
    return [row["new_loss"] for row in path], [forgetting(row) for row in path]


def reached(rows: list[Row], method: str, target: float) -> list[float]:
    """Forgetting at the target, a seed at a time."""
    found = (at_loss(run, target) for run in runs(rows, method=method))
    return [value for value in found if value is not None]


def place(rows: list[Row], method: str, target: float) -> float:
    """What methods are ordered by: those that do not learn so much come last."""
    values = reached(rows, method, target)
    return -float(np.mean(values)) if values else float("inf")


def table(rows: list[Row]) -> str:
    """Each method at the target loss."""
    target = rows[0]["target"]
    lines = [
        f"| at a new loss of {target:g} | forgetting | KL(base‖tuned) | steps | seeds that reach it |",
        "|---|---|---|---|---|",
    ]
    for method, name in NAMES.items():
        group = runs(rows, method=method)
        forgotten, count = mean_at(group, target)
        kl, _ = mean_at(group, target, lambda row: row["kl"])
        steps, _ = mean_at(group, target, lambda row: row["step"])
        # Mixtures take no steps of their own.
        taken = "–" if method == "interpolation" or steps is None else f"{steps.value:.0f}"
        lines.append(f"| {name} | {told(forgotten)} | {told(kl)} | {taken} | {count} of {len(group)} |")
    return "\n".join(lines)


def removed(rows: list[Row], method: str) -> list[float]:
    """The share of standard fine-tuning's forgetting that a method removes at equal task loss, a seed at a time."""
    target, found = rows[0]["target"], []
    for seed in sorted({row["seed"] for row in rows}):
        (plain,) = runs(rows, method="standard", seed=seed)
        (kept,) = runs(rows, method=method, seed=seed)
        forgotten, left = at_loss(plain, target), at_loss(kept, target)
        if forgotten is not None and left is not None:
            found.append(1 - left / forgotten)
    return found


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's main comparison shows, and what it leaves open."""
    paper = {"kl_self": "97 %", "kl_real": "98 %", "ntp_self": "95 %", "ntp_real": "96 %"}
    measure = "share of standard fine-tuning's forgetting that is gone at equal task loss"
    found = []
    for method, number in paper.items():
        values = removed(rows, method)
        if values:
            found.append(
                Claim(
                    claim=f"{NAMES[method]}, nearly eliminates forgetting",
                    paper=number,
                    measure=measure,
                    ours=over_seeds(values),
                    above=0.95 if method.startswith("kl") else 0.9,
                )
            )
    own, real = removed(rows, "kl_self"), removed(rows, "kl_real")
    if len(own) == len(real) > 0:
        found.append(
            Claim(
                claim="self-generated replay is as good as old text, under KL",
                paper="97 % and 98 %",
                measure="what old text removes more, as a share of standard's forgetting",
                ours=over_seeds(np.subtract(real, own).tolist()),
                below=0.05,
            )
        )
    for method in ("lora", "osft", "finch", "interpolation", "kl_task"):
        values = removed(rows, method)
        if values:
            found.append(
                Claim(
                    claim=f"{NAMES[method]}, without old data, falls short of self-replay",
                    paper=".140 forgotten, standard .113, at one rate" if method == "lora" else None,
                    measure=measure + FROZEN if method in ("lora", "osft") else measure,
                    ours=over_seeds(values),
                    below=0.9,
                )
            )
    return found


if __name__ == "__main__":
    draw(HERE, figure)
