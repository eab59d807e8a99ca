"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/capacity_frontier/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Run, best_at, forgetting, runs, told
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent


def lengths(rows: list[Row]) -> list[float]:
    """Tokens a parameter of the two bases, the shortly pretrained first."""
    return sorted({row["tokens_per_parameter"] for row in rows})


def mixtures(rows: list[Row], length: float) -> dict[float, list[Row]]:
    """The models pretrained on mixtures, a row a seed, by the share of the new text."""
    own = [run[-1] for run in runs(rows, tokens_per_parameter=length) if run[0]["steps"] == 0]
    return {share: [row for row in own if row["mixture"] == share] for share in sorted({row["mixture"] for row in own})}


def tuned(rows: list[Row], length: float) -> dict[float, list[Run]]:
    """The fine-tuning runs from the base of a length, by λ."""
    own = [run for run in runs(rows, tokens_per_parameter=length) if run[0]["steps"] > 0]
    return {
        lambda_: [run for run in own if run[0]["lambda_"] == lambda_]
        for lambda_ in sorted({run[0]["lambda_"] for run in own})
    }


def ends(group: list[Run], seed: int) -> Row:
    """The last reading of a seed's run."""
    return next(run[-1] for run in group if run[0]["seed"] == seed)


def seeds(rows: list[Row]) -> list[int]:
    """All of them."""
    return sorted({row["seed"] for row in rows})


def figure(rows: list[Row]) -> Any:
    """A panel a base: the frontier of mixtures, and where fine-tuning ends by λ; axes are both losses."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import PAGE  # noqa: PLC0415

    drawn, axes = plt.subplots(1, len(lengths(rows)), figsize=(PAGE, 3.4), squeeze=False, sharey=True)
    for axis, length in zip(axes[0], lengths(rows), strict=True):
        panel(axis, rows, length)
        axis.set_xlabel("loss on the new text, nats per token")
        axis.set_title(f"base of {length:g} tokens per parameter")
    axes[0][0].set_ylabel("loss on the old text, nats per token")
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=2)
    return drawn


def panel(axis: Any, rows: list[Row], length: float) -> None:
    """The base's old loss as a line, mixtures of both lengths, ends of fine-tuning by λ; small dots are seeds."""
    from keeptune.plot_style import BLUE, GREY, ORANGE  # noqa: PLC0415

    longest = lengths(rows)[-1]
    for other, style in ((longest, "-"), (length, "--")):
        points = {share: own for share, own in mixtures(rows, other).items() if share}
        if other == length == longest and style == "--":
            continue
        path = [middle(own) for own in points.values()]
        axis.plot(
            *zip(*path, strict=True),
            style,
            color=GREY,
            marker="s",
            label=f"mixtures by share of new text, {other:g} tokens per parameter",
        )
        if other == length:
            for share, place in zip(points, path, strict=True):
                note(axis, f"{100 * share:g} %", place, GREY, (0, -5), ha="center", va="top")
    base = middle(mixtures(rows, length)[0.0])[1]
    axis.axhline(base, color=ORANGE, linewidth=0.9, linestyle=":", label="old loss of the base")
    axis.margins(x=0.12, y=0.1)
    groups = tuned(rows, length)
    path = [middle([run[-1] for run in group]) for group in groups.values()]
    axis.plot(*zip(*path, strict=True), "o-", color=BLUE, label="fine-tuned with KL, by λ")
    for (lambda_, group), place in zip(groups.items(), path, strict=True):
        note(axis, f"λ = {lambda_:g}", place, BLUE, (6, 0 if 0 < lambda_ < 1 else 7), ha="left", va="center")
        axis.plot(
            [run[-1]["new_loss"] for run in group],
            [run[-1]["old_loss"] for run in group],
            ".",
            color=BLUE,
            markersize=2.5,
            alpha=0.6,
        )


def note(axis: Any, text: str, place: tuple[float, float], colour: str, shift: tuple[int, int], **how: str) -> None:
    """A label beside a point."""
    axis.annotate(text, place, xytext=shift, textcoords="offset points", fontsize=6.5, color=colour, **how)


def middle(own: list[Row]) -> tuple[float, float]:
    """Mean new and old loss over seeds."""
    return float(np.mean([row["new_loss"] for row in own])), float(np.mean([row["old_loss"] for row in own]))


def above_frontier(rows: list[Row], length: float, end: Row) -> float | None:
    """How much higher a model's old loss is than that of a mixture with its new loss, of this length and the same seed.

    Straight between mixtures, None beyond them.
    """
    own = [row for group in mixtures(rows, length).values() for row in group if row["seed"] == end["seed"]]
    own.sort(key=lambda row: row["new_loss"])
    if not own[0]["new_loss"] <= end["new_loss"] <= own[-1]["new_loss"]:
        return None
    frontier = np.interp(end["new_loss"], [row["new_loss"] for row in own], [row["old_loss"] for row in own])
    return float(end["old_loss"] - frontier)


def table(rows: list[Row]) -> str:
    """Both losses of every mixture, and of every end of fine-tuning."""
    lines = ["| tokens a parameter | model | new loss | old loss | forgetting |", "|---|---|---|---|---|"]
    for length in lengths(rows):
        for share, own in mixtures(rows, length).items():
            name = f"pretrained, {100 * share:.3g} % new" if share else "the base"
            lines.append(f"| {length:g} | {name} | {mean_of(own, 'new_loss')} | {mean_of(own, 'old_loss')} | – |")
        for lambda_, group in tuned(rows, length).items():
            own = [run[-1] for run in group]
            forgotten = told(over_seeds([forgetting(row) for row in own]))
            name = f"fine-tuned, λ = {lambda_:g}"
            lines.append(
                f"| {length:g} | {name} | {mean_of(own, 'new_loss')} | {mean_of(own, 'old_loss')} | {forgotten} |"
            )
    return "\n".join(lines)


def mean_of(own: list[Row], column: str) -> str:
    """A column's mean over seeds with its interval."""
    return told(over_seeds([row[column] for row in own]))


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's frontier shows."""
    short, long = lengths(rows)
    target, groups = rows[0]["target"], tuned(rows, long)
    loose, stiff = min(set(groups) - {0.0}), max(groups)

    def claim(text: str, measure: str, ours: Interval, **bound: float) -> Claim:
        return Claim(claim=text, paper="figure only", measure=f"{measure}, nats per token", ours=ours, **bound)

    def change(column: str) -> Interval:
        return over_seeds(
            [ends(groups[loose], seed)[column] - ends(groups[stiff], seed)[column] for seed in seeds(rows)]
        )

    far = {
        seed: [above_frontier(rows, long, ends(group, seed)) for lambda_, group in groups.items() if lambda_ > 0]
        for seed in seeds(rows)
    }
    near = [float(np.mean([value for value in values if value is not None])) for values in far.values() if any(values)]
    found = [
        claim("λ trades the old loss …", f"old loss, λ = {loose:g} less λ = {stiff:g}", change("old_loss"), above=0.05),
        claim("… for the new one", f"new loss, λ = {loose:g} less λ = {stiff:g}", change("new_loss"), below=-0.05),
    ]
    if near:
        measure = "old loss above that of a mixture with the same new loss, mean over λ > 0"
        found.append(
            claim("fine-tuning at several λ traces the frontier of mixtures", measure, over_seeds(near), below=0.1)
        )
    for length, bound in ((short, {"below": 0.02}), (long, {"above": 0.05})):
        best = best_at(rows, target, sorted(set(groups) - {0.0}), tokens_per_parameter=length)
        if best.interval is not None:
            does = "learns the new text without forgetting" if length == short else "has to forget for it"
            text = f"a model of {length:g} tokens a parameter {does}"
            found.append(claim(text, f"forgetting at a new loss of {target:g}, best λ", best.interval, **bound))
    return found


if __name__ == "__main__":
    draw(HERE, figure)
