"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/size_length_grid/plot.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Best, best_at, runs, told
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent


def lambdas(rows: list[Row]) -> list[float]:
    """Those of the KL, from the least on."""
    return sorted({row["lambda_"] for row in rows} - {0.0})


def widths(rows: list[Row]) -> list[int]:
    """From the narrowest on."""
    return sorted({row["width"] for row in rows})


def lengths(rows: list[Row]) -> list[float]:
    """Tokens a parameter, from the shortest pretraining on."""
    return sorted({row["tokens_per_parameter"] for row in rows})


def at(rows: list[Row], width: int, length: float, among: list[float]) -> Best:
    """What models of a size and a length forget at the target under the best of these λ."""
    return best_at(rows, rows[0]["target"], among, width=width, tokens_per_parameter=length)


def kept_share(rows: list[Row], width: int, length: float, seed: int, forgotten: float) -> float:
    """The share of its pretraining at which the model first had the old loss that it has fallen back to.

    Straight, in the logarithm of tokens, between models of other lengths; below the shortest on the line of the first
    two, and never above 1.
    """
    group = [
        next(iter(runs(rows, width=width, tokens_per_parameter=other, seed=seed, lambda_=0.0)))[0]
        for other in lengths(rows)
    ]
    loss = next(row["base_old_loss"] for row in group if row["tokens_per_parameter"] == length) + forgotten
    logs, losses = [np.log(row["tokens_per_parameter"]) for row in group], [row["base_old_loss"] for row in group]
    if loss > losses[0]:
        back = logs[0] - (loss - losses[0]) * (logs[1] - logs[0]) / (losses[0] - losses[1])
    else:
        back = float(np.interp(-loss, [-value for value in losses], logs))
    return min(float(np.exp(back - np.log(length))), 1.0)


def shares(rows: list[Row], width: int, length: float, among: list[float]) -> list[float]:
    """`kept_share` of each seed that learns the target."""
    found = at(rows, width, length, among).by_seed
    return [kept_share(rows, width, length, seed, forgotten) for seed, forgotten in found.items()]


def figure(rows: list[Row]) -> Any:
    """Heat maps over size and length: standard above, KL below; left forgetting, right the pretraining that is kept."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import PAGE  # noqa: PLC0415

    drawn, axes = plt.subplots(2, 2, figsize=(PAGE, 4.4), sharex=True, sharey=True)
    ways = (([0.0], "standard"), (lambdas(rows), "KL, best λ"))
    reached = [value for among, _ in ways for value in at_all(rows, among) if value is not None]
    worst = max(reached, default=0.0)
    # A map of nothing but noise stays light.
    worst = max(worst, 0.05)
    for line, (among, name) in zip(axes, ways, strict=True):
        heat(
            line[0],
            rows,
            lambda width, length, among=among: list(at(rows, width, length, among).by_seed.values()),
            0.0,
            worst,
        )
        heat(line[1], rows, lambda width, length, among=among: shares(rows, width, length, among), 1.0, 0.0)
        line[0].set_title(f"{name}: forgetting, nats per token")
        line[1].set_title(f"{name}: share of pretraining kept")
        line[0].set_ylabel("parameters")
    for axis in axes[1]:
        axis.set_xlabel("length of pretraining, tokens per parameter")
    return drawn


def at_all(rows: list[Row], among: list[float]) -> list[float | None]:
    """Mean forgetting of every size and length, None where the target is not reached."""
    intervals = [at(rows, width, length, among).interval for width in widths(rows) for length in lengths(rows)]
    return [None if interval is None else interval.value for interval in intervals]


def heat(axis: Any, rows: list[Row], of: Callable[[int, float], list[float]], best: float, worst: float) -> None:
    """A map of means over seeds, light where `best`, with the numbers written in and their standard deviation."""
    table = np.full((len(widths(rows)), len(lengths(rows))), np.nan)
    for high, width in enumerate(widths(rows)):
        for right, length in enumerate(lengths(rows)):
            values = of(width, length)
            if values:
                table[high, right] = np.mean(values)
            depth = 0.0 if not values else (table[high, right] - best) / (worst - best)
            axis.text(
                right,
                high,
                label(values),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if depth > 0.55 else "black",
            )
    limits = sorted((best, worst))
    axis.imshow(
        table,
        cmap="Blues" if best < worst else "Blues_r",
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        aspect="auto",
    )
    axis.grid(False)
    axis.set_facecolor("#E4E4E4")
    sizes = [next(row["parameters"] for row in rows if row["width"] == width) for width in widths(rows)]
    axis.set_xticks(range(len(lengths(rows))), [f"{length:g}" for length in lengths(rows)])
    axis.set_yticks(range(len(sizes)), [f"{size / 1e3:.3g} k" for size in sizes])


def label(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "not\nreached"
    spread = f"\n± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def table(rows: list[Row]) -> str:
    """Every size and length at the target loss."""
    lines = [
        "| parameters | tokens a parameter | old loss before | standard | kept | KL | λ | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for width in widths(rows):
        for length in lengths(rows):
            group = runs(rows, width=width, tokens_per_parameter=length, lambda_=0.0)
            before = over_seeds([run[0]["base_old_loss"] for run in group])
            plain, best = (at(rows, width, length, among) for among in ([0.0], lambdas(rows)))
            worth = [share_told(shares(rows, width, length, among)) for among in ([0.0], lambdas(rows))]
            lines.append(
                f"| {group[0][0]['parameters']} | {length:g} | {told(before)} | {told(plain.interval)} | {worth[0]} "
                f"| {told(best.interval)} | {'–' if best.lambda_ is None else f'{best.lambda_:g}'} | {worth[1]} |"
            )
    head = (
        f"Forgetting at a new loss of {rows[0]['target']:g}, nats per token, and the share of pretraining that is kept:"
    )
    return "\n".join([head, "", *lines])


def share_told(values: list[float]) -> str:
    """Mean share in percent."""
    return f"{100 * np.mean(values):.3g} %" if values else "–"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's grid shows."""
    places = [(width, length) for width in widths(rows) for length in lengths(rows)]
    plain = {place: at(rows, *place, [0.0]).by_seed for place in places}
    kept = {place: at(rows, *place, lambdas(rows)) for place in places}
    reached = {place: best.by_seed for place, best in kept.items() if best.by_seed}
    seeds = sorted({row["seed"] for row in rows})
    corner = places[0]
    others = [values for place, values in plain.items() if place != corner and len(values) == len(seeds)]
    found = []

    def claim(text: str, paper: str, measure: str, ours: Interval, **bound: float) -> Claim:
        return Claim(claim=text, paper=paper, measure=measure, ours=ours, **bound)

    if others and len(plain[corner]) == len(seeds):
        found.append(
            claim(
                "without KL the smallest model of the shortest pretraining forgets most",
                ".37, the most of the grid",
                "its forgetting less that of the worst other, nats per token",
                over_seeds([plain[corner][seed] - max(values[seed] for values in others) for seed in seeds]),
                above=0.0,
            )
        )
    if reached:
        worst = [max(values[seed] for values in reached.values()) for seed in seeds]
        least = [
            min(kept_share(rows, *place, seed, values[seed]) for place, values in reached.items()) for seed in seeds
        ]
        every = f"the worst of {len(reached)} of {len(places)} sizes and lengths that learn the target"
        found += [
            claim(
                "with KL nobody forgets on an easy target",
                "about 0 everywhere",
                f"{every}: forgetting, nats per token",
                over_seeds(worst),
                below=0.05,
            ),
            claim(
                "with KL most of pretraining is kept",
                "figure only",
                f"{every}: share of pretraining at which it had the loss that it fell back to",
                over_seeds(least),
                above=0.5,
            ),
        ]
    return found


if __name__ == "__main__":
    draw(HERE, figure)
