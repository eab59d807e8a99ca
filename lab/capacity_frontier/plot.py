"""Figure, table and claims of the frontier of old and new loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import legend_below, note, panels
from common.grid import Row
from common.small.curves import Run, best_at, forgetting, kl_lambdas, runs, values
from common.stats import Claim, Interval, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import BLUE, GREY, ORANGE


def mixtures(rows: list[Row], length: float) -> dict[float, list[Row]]:
    """The models pretrained on mixtures, a row per seed, by the share of the new text."""
    own = [run[-1] for run in runs(rows, tokens_per_parameter=length) if run[0]["steps"] == 0]
    return {share: [row for row in own if row["mixture"] == share] for share in values(own, "mixture")}


def tuned(rows: list[Row], length: float) -> dict[float, list[Run]]:
    """The fine-tuning runs from the base of one length of pretraining, by λ."""
    own = [run for run in runs(rows, tokens_per_parameter=length) if run[0]["steps"] > 0]
    lambdas = values([run[0] for run in own], "lambda_")
    return {lambda_: [run for run in own if run[0]["lambda_"] == lambda_] for lambda_ in lambdas}


def end(group: list[Run], seed: int) -> Row:
    """The last reading of a seed's run."""
    return next(run[-1] for run in group if run[0]["seed"] == seed)


def figure(rows: list[Row]) -> Any:
    """A panel per base: the frontier of mixtures, and where fine-tuning ends by λ. The axes are the two losses."""
    lengths = values(rows, "tokens_per_parameter")
    drawn, axes = panels(3.4, len(lengths), squeeze=False, sharey=True)
    for axis, length in zip(axes[0], lengths, strict=True):
        panel(axis, rows, length)
        axis.set_xlabel("loss on the new text, nats per token")
        axis.set_title(f"base of {length:g} tokens per parameter")
    axes[0][0].set_ylabel("loss on the old text, nats per token")
    legend_below(drawn, axes[0][0], ncols=2)
    return drawn


def panel(axis: Any, rows: list[Row], length: float) -> None:
    """Mixtures of this length and the longest, the base's old loss, and the ends of fine-tuning; dots are seeds."""
    longest = values(rows, "tokens_per_parameter")[-1]
    for other, style in {longest: "-", length: "-" if length == longest else "--"}.items():
        points = {share: own for share, own in mixtures(rows, other).items() if share}
        path = [middle(own) for own in points.values()]
        label = f"mixtures by share of new text, {other:g} tokens per parameter"
        axis.plot(*zip(*path, strict=True), style, color=GREY, marker="s", label=label)
        if other == length:
            for share, place in zip(points, path, strict=True):
                note(axis, *place, f"{100 * share:g} %", color=GREY, offset=(0, -5), ha="center", va="top")
    base = middle(mixtures(rows, length)[0.0])[1]
    axis.axhline(base, color=ORANGE, linewidth=0.9, linestyle=":", label="old loss of the base")
    axis.margins(x=0.12, y=0.1)
    groups = tuned(rows, length)
    path = [middle([run[-1] for run in group]) for group in groups.values()]
    axis.plot(*zip(*path, strict=True), "o-", color=BLUE, label="fine-tuned with KL, by λ")
    for (lambda_, group), place in zip(groups.items(), path, strict=True):
        offset = (6, 0 if 0 < lambda_ < 1 else 7)
        note(axis, *place, f"λ = {lambda_:g}", color=BLUE, offset=offset, ha="left", va="center")
        ends = [[run[-1][loss] for run in group] for loss in ("new_loss", "old_loss")]
        axis.plot(*ends, ".", color=BLUE, markersize=2.5, alpha=0.6)


def middle(own: list[Row]) -> tuple[float, float]:
    """Mean new and old loss over seeds."""
    return float(np.mean([row["new_loss"] for row in own])), float(np.mean([row["old_loss"] for row in own]))


def above_frontier(rows: list[Row], length: float, last: Row) -> float | None:
    """How much higher a model's old loss is than that of a mixture with its new loss, of this length and the same seed.

    Linear between mixtures; None beyond them.
    """
    own = [row for group in mixtures(rows, length).values() for row in group if row["seed"] == last["seed"]]
    own.sort(key=lambda row: row["new_loss"])
    if not own[0]["new_loss"] <= last["new_loss"] <= own[-1]["new_loss"]:
        return None
    frontier = np.interp(last["new_loss"], [row["new_loss"] for row in own], [row["old_loss"] for row in own])
    return float(last["old_loss"] - frontier)


def table(rows: list[Row]) -> str:
    """Both losses of every mixture, and of every end of fine-tuning."""

    def mean_of(own: list[Row], column: str) -> str:
        return format_interval(over_seeds([row[column] for row in own]))

    lines = []
    for length in values(rows, "tokens_per_parameter"):
        for share, own in mixtures(rows, length).items():
            name = f"pretrained, {100 * share:.3g} % new" if share else "the base"
            lines.append([f"{length:g}", name, mean_of(own, "new_loss"), mean_of(own, "old_loss"), "–"])
        for lambda_, group in tuned(rows, length).items():
            own = [run[-1] for run in group]
            forgotten = format_interval(over_seeds([forgetting(row) for row in own]))
            name = f"fine-tuned, λ = {lambda_:g}"
            lines.append([f"{length:g}", name, mean_of(own, "new_loss"), mean_of(own, "old_loss"), forgotten])
    return markdown(["tokens a parameter", "model", "new loss", "old loss", "forgetting"], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's frontier shows."""
    short, long = values(rows, "tokens_per_parameter")
    target, groups, seeds = rows[0]["target"], tuned(rows, long), values(rows, "seed")
    weak, *_, strong = kl_lambdas(rows)

    def claim(text: str, measure: str, ours: Interval | None, **bound: Any) -> Claim | None:
        if ours is None:
            return None
        return Claim(claim=text, measure=f"{measure}, nats per token", ours=ours, **bound)

    def change(column: str) -> Interval:
        return over_seeds([end(groups[weak], seed)[column] - end(groups[strong], seed)[column] for seed in seeds])

    def without_forgetting(length: float, does: str, **bound: Any) -> Claim | None:
        best = best_at(rows, target, kl_lambdas(rows), tokens_per_parameter=length)
        measure = f"forgetting at a new loss of {target:g}, best λ"
        return claim(f"a model of {length:g} tokens a parameter {does}", measure, best.interval, **bound)

    distances = [
        [above_frontier(rows, long, end(group, seed)) for lambda_, group in groups.items() if lambda_] for seed in seeds
    ]
    means = [float(np.mean([far for far in own if far is not None])) for own in distances if any(own)]
    less = f"λ = {weak:g} less λ = {strong:g}"
    return measured(
        claim(
            "λ trades the old loss …",
            f"old loss, {less}",
            change("old_loss"),
            above=0.05,
            paper="about .7: 3.69 at .01, 2.97 at 10",
        ),
        claim(
            "… for the new one",
            f"new loss, {less}",
            change("new_loss"),
            below=-0.05,
            paper="about −.46: 2.74 at .01, 3.20 at 10",
        ),
        claim(
            "fine-tuning at several λ traces the frontier of mixtures",
            "old loss above that of a mixture with the same new loss, mean over λ > 0",
            over_seeds(means) if means else None,
            below=0.1,
            paper="about .03–.08 above it for λ from 1 to 10",
        ),
        without_forgetting(
            short, "learns the new text without forgetting", below=0.02, paper="3.69 → 3.75 at 20 tokens a parameter"
        ),
        without_forgetting(
            long, "has to forget for it", above=0.05, paper="2.92 → about 3.68 at 17,000, for the same new loss of 2.75"
        ),
    )
