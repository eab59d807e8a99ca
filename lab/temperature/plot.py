"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/temperature/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curves import Run, by_seed, mean_at, paired, runs, told
from drawing import logarithmic, whiskers
from grid import Row, draw
from stats import Claim, over_seeds

HERE = Path(__file__).resolve().parent
NAMES = {"kl_self": "KL, λ = 10", "ntp_self": "next-token loss, λ = 3"}


def temperatures(rows: list[Row]) -> list[float]:
    """From the least on."""
    return sorted({row["temperature"] for row in rows})


def group(rows: list[Row], method: str, temperature: float) -> list[Run]:
    """The runs of one setting."""
    return runs(rows, method=method, temperature=temperature)


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by the temperature of the replay text; right, the steps to the target."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, GREY, ORANGE, PAGE  # noqa: PLC0415

    target, places = rows[0]["target"], temperatures(rows)
    drawn, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.1))
    panels = ((left, None), (right, lambda row: row["step"]))
    for axis, of in panels:
        wanted = () if of is None else (of,)
        plain, _ = mean_at(runs(rows, method="standard"), target, *wanted)
        for method, colour, mark in (("kl_self", BLUE, "^"), ("ntp_self", ORANGE, "s")):
            points = [(place, mean_at(group(rows, method, place), target, *wanted)[0]) for place in places]
            whiskers(axis, points, color=colour, marker=mark, label=NAMES[method])
        if plain is not None:
            axis.axhline(plain.value, color=GREY, linewidth=0.9, linestyle="--", label="no replay")
        axis.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
        axis.set_xscale("log")
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()
        logarithmic(axis, "y")
        axis.set_xlabel("temperature of the replay text")
    left.set_ylabel("forgetting: rise of the old loss,\nnats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {target:g}")
    right.set_ylabel("steps, mean and 95 % interval")
    right.set_title("what it takes to get there")
    left.legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each temperature at the target loss."""
    target = rows[0]["target"]
    lines = [
        f"| at a new loss of {target:g} | temperature | forgetting | KL(base‖tuned) on old text | steps |",
        "|---|---|---|---|---|",
    ]
    settings = [("no replay", "–", runs(rows, method="standard"))]
    settings += [
        (name, f"{place:g}", group(rows, method, place))
        for method, name in NAMES.items()
        for place in temperatures(rows)
    ]
    for name, place, own in settings:
        kl, _ = mean_at(own, target, lambda row: row["kl"])
        steps, _ = mean_at(own, target, lambda row: row["step"])
        taken = "–" if steps is None else f"{steps.value:.0f}"
        lines.append(f"| {name} | {place} | {told(mean_at(own, target)[0])} | {told(kl)} | {taken} |")
    return "\n".join(lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Our own findings on text of another temperature; differences are taken within a seed."""
    target, places = rows[0]["target"], temperatures(rows)
    low, high = places[0], places[-1]
    plain = by_seed(runs(rows, method="standard"), target)

    def forgotten(method: str, place: float) -> dict[int, float]:
        return by_seed(group(rows, method, place), target)

    def more(first: dict[int, float], second: dict[int, float]) -> list[float]:
        return paired(first, second, lambda one, other: one - other)

    found = [
        Claim(
            claim=f"a KL on text of temperature {place:g} still holds",
            measure="share of standard fine-tuning's forgetting that is gone at equal task loss",
            ours=over_seeds(gone),
            above=0.9,
        )
        for place in (low, high)
        if (gone := paired(forgotten("kl_self", place), plain, lambda kept, lost: 1 - kept / lost))
    ]
    wanted: list[tuple[str, str, list[float], dict[str, float]]] = [
        (
            f"next-token loss on text of temperature {low:g} is worse than no replay",
            f"forgetting, temperature {low:g} minus no replay, nats",
            more(forgotten("ntp_self", low), plain),
            {"above": 0.0},
        ),
        (
            "next-token loss keeps less from surer text",
            "forgetting with next-token loss, temperature 0.6 minus 1, nats",
            more(forgotten("ntp_self", 0.6), forgotten("ntp_self", 1.0)),
            {"above": 0.0},
        ),
        (
            "under KL the temperature hardly matters near 1",
            "forgetting with KL, the higher of temperatures 0.8 and 1.25 minus 1, nats",
            worst(
                more(forgotten("kl_self", 0.8), forgotten("kl_self", 1.0)),
                more(forgotten("kl_self", 1.25), forgotten("kl_self", 1.0)),
            ),
            {"below": 0.01},
        ),
    ]
    return found + [
        Claim(claim=claim, measure=measure, ours=over_seeds(values), **bound)
        for claim, measure, values, bound in wanted
        if values
    ]


def worst(first: list[float], second: list[float]) -> list[float]:
    """Of two lists of one value a seed, the one whose mean is higher."""
    return max(first, second, key=lambda values: sum(values) / max(len(values), 1))


if __name__ == "__main__":
    draw(HERE, figure)
