"""Figure, table and claims of forgetting by size and length of pretraining, on an easy task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from common.drawing import panels
from common.grid import Row
from common.small.curves import Best, best_at, kl_lambdas, runs, values
from common.stats import Claim, measured, over_seeds
from common.tables import format_interval, markdown

Place = tuple[int, float]
"""A width, and a length of pretraining in tokens per parameter."""


def places(rows: list[Row]) -> list[Place]:
    """All sizes and lengths, from the smallest size and shortest length on."""
    lengths = values(rows, "tokens_per_parameter")
    return [(width, length) for width in values(rows, "width") for length in lengths]


def at(rows: list[Row], place: Place, among: list[float]) -> Best:
    """What models of a size and length forget at the target with the best of these λ."""
    return best_at(rows, rows[0]["target"], among, width=place[0], tokens_per_parameter=place[1])


def kept_share(rows: list[Row], place: Place, seed: int, forgotten: float) -> float:
    """The share of pretraining at which the model first had the old loss that it has fallen back to, at most 1.

    Interpolated linearly in the logarithm of tokens between models of the other lengths. Below the shortest length it
    is extrapolated along the line of the first two.
    """
    width, length = place
    lengths = values(rows, "tokens_per_parameter")
    losses = [
        runs(rows, width=width, tokens_per_parameter=other, seed=seed, lambda_=0.0)[0][0]["base_old_loss"]
        for other in lengths
    ]
    loss, logs = losses[lengths.index(length)] + forgotten, [np.log(other) for other in lengths]
    if loss > losses[0]:
        back = logs[0] - (loss - losses[0]) * (logs[1] - logs[0]) / (losses[0] - losses[1])
    else:
        back = float(np.interp(-loss, [-value for value in losses], logs))
    return min(float(np.exp(back - np.log(length))), 1.0)


def shares(rows: list[Row], place: Place, among: list[float]) -> list[float]:
    """`kept_share` of each seed that reaches the target."""
    return [kept_share(rows, place, seed, forgotten) for seed, forgotten in at(rows, place, among).by_seed.items()]


def figure(rows: list[Row]) -> Any:
    """Heat maps over size and length: standard above, KL below; left forgetting, right the pretraining that is kept."""
    drawn, axes = panels(4.4, 2, 2, sharex=True, sharey=True)
    ways = {"standard": [0.0], "KL, best λ": kl_lambdas(rows)}
    intervals = [at(rows, place, among).interval for among in ways.values() for place in places(rows)]
    # A map with nothing but noise stays light.
    worst = max([0.05, *(interval.value for interval in intervals if interval is not None)])
    for line, (name, among) in zip(axes, ways.items(), strict=True):

        def forgotten(place: Place, among: list[float] = among) -> list[float]:
            return list(at(rows, place, among).by_seed.values())

        def kept(place: Place, among: list[float] = among) -> list[float]:
            return shares(rows, place, among)

        heat(line[0], rows, forgotten, 0.0, worst)
        heat(line[1], rows, kept, 1.0, 0.0)
        line[0].set_title(f"{name}: forgetting, nats per token")
        line[1].set_title(f"{name}: share of pretraining kept")
        line[0].set_ylabel("parameters")
    for axis in axes[1]:
        axis.set_xlabel("length of pretraining, tokens per parameter")
    return drawn


def heat(axis: Any, rows: list[Row], of: Callable[[Place], list[float]], best: float, worst: float) -> None:
    """A map of means over seeds, light where `best`, with the means and standard deviations written in."""
    widths, lengths = values(rows, "width"), values(rows, "tokens_per_parameter")
    means = np.full((len(widths), len(lengths)), np.nan)
    for place in places(rows):
        high, right, seeds = widths.index(place[0]), lengths.index(place[1]), of(place)
        if seeds:
            means[high, right] = np.mean(seeds)
        depth = (means[high, right] - best) / (worst - best) if seeds else 0.0
        look = {"ha": "center", "va": "center", "fontsize": 6.5, "color": "white" if depth > 0.55 else "black"}
        axis.text(right, high, label(seeds), **look)
    low, top = sorted((best, worst))
    colours = "Blues" if best < worst else "Blues_r"
    axis.imshow(means, cmap=colours, vmin=low, vmax=top, origin="lower", aspect="auto")
    axis.grid(False)
    axis.set_facecolor("#E4E4E4")
    sizes = [next(row["parameters"] for row in rows if row["width"] == width) for width in widths]
    axis.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
    axis.set_yticks(range(len(sizes)), [f"{size / 1e3:.3g} k" for size in sizes])


def label(seeds: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not seeds:
        return "not\nreached"
    spread = f"\n± {np.std(seeds, ddof=1):.3f}" if len(seeds) > 1 else ""
    return f"{np.mean(seeds):.3f}{spread}"


def table(rows: list[Row]) -> str:
    """Every size and length at the target loss."""
    lines = []
    for place in places(rows):
        width, length = place
        group = runs(rows, width=width, tokens_per_parameter=length, lambda_=0.0)
        before = over_seeds([run[0]["base_old_loss"] for run in group])
        (plain, plain_kept), (best, kept) = (
            (at(rows, place, among), shares(rows, place, among)) for among in ([0.0], kl_lambdas(rows))
        )
        about = [str(group[0][0]["parameters"]), f"{length:g}", format_interval(before)]
        lambda_ = "–" if best.lambda_ is None else f"{best.lambda_:g}"
        with_kl = [format_interval(best.interval), lambda_, percent(kept)]
        lines.append([*about, format_interval(plain.interval), percent(plain_kept), *with_kl])
    target = f"Forgetting at a new loss of {rows[0]['target']:g}"
    head = ["parameters", "tokens a parameter", "old loss before", "standard", "kept", "KL", "λ", "kept"]
    return f"{target}, nats per token, and the share of pretraining that is kept:\n\n{markdown(head, lines)}"


def percent(seeds: list[float]) -> str:
    """Mean share in percent."""
    return f"{100 * np.mean(seeds):.3g} %" if seeds else "–"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's grid shows."""
    corner, *others = places(rows)
    seeds = values(rows, "seed")
    plain = {place: at(rows, place, [0.0]).by_seed for place in places(rows)}
    whole = [plain[place] for place in others if len(plain[place]) == len(seeds)]
    kept = {place: at(rows, place, kl_lambdas(rows)).by_seed for place in places(rows)}
    reached = {place: by_seed for place, by_seed in kept.items() if by_seed}
    every = f"the worst of {len(reached)} of {len(kept)} sizes and lengths that learn the target"

    def claim(text: str, paper: str, measure: str, of: Callable[[int], float], given: Any, **bound: Any) -> Any:
        if not given:
            return None
        ours = over_seeds([of(seed) for seed in seeds])
        return Claim(claim=text, paper=paper, measure=measure, ours=ours, **bound)

    return measured(
        claim(
            "without KL the smallest model of the shortest pretraining forgets most",
            ".37, the most of the grid",
            "its forgetting less that of the worst other, nats per token",
            lambda seed: plain[corner][seed] - max(other[seed] for other in whole),
            whole and len(plain[corner]) == len(seeds),
            above=0.0,
        ),
        claim(
            "with KL nobody forgets on an easy target",
            "about 0 everywhere",
            f"{every}: forgetting, nats per token",
            lambda seed: max(by_seed[seed] for by_seed in reached.values()),
            reached,
            below=0.05,
        ),
        claim(
            "with KL most of pretraining is kept",
            "about .85 or more everywhere",
            f"{every}: share of pretraining at which it had the loss that it fell back to",
            lambda seed: min(kept_share(rows, place, seed, by_seed[seed]) for place, by_seed in reached.items()),
            reached,
            above=0.5,
        ),
    )
