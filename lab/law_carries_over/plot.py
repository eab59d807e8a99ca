"""Figure, table and claims of the laws of forgetting under several ways of tuning."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from common.drawing import panels
from common.fits import late, readings
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, Interval, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.errors import ConfigError
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.readings import Runs
from keeptune.plot_style import BLUE, COLOURS, MARKS, ORANGE

NAMES = {
    "lora": "LoRA, all linear layers",
    "attention": "LoRA, attention only",
    "standard": "all weights",
    "top": "top layers",
    "ia3": "IA³",
}
POOLED = "IA³ and top layers"
GROUPS: dict[str, tuple[str, ...]] = {
    **{name: (tuning,) for tuning, name in NAMES.items()},
    POOLED: ("ia3", "top"),
    "all five": tuple(NAMES),
}
LAWS = {"line": "line (4)", "joint": "joint law (6)"}


def runs_of(rows: list[Row], group: str, seed: int) -> Runs:
    """The readings of a group of ways of tuning, from one base."""
    own = [row for row in late(rows) if row["tuning"] in GROUPS[group] and row["seed"] == seed]
    return readings(own, lambda row: (row["tuning"], row["P"]))


def interval(rows: list[Row], law: str, group: str) -> Interval | None:
    """R² of L_f, mean over seeds with Student's t, at most 1; None if no seed determines the law."""
    fits = [r2(Numbers(runs_of(rows, group, seed)), law) for seed in values(rows, "seed")]
    determined = [value for value in fits if value is not None]
    return over_seeds(determined, most=1.0) if determined else None


class Numbers:
    """Runs that are equal if their numbers are, so that claims, table and figure fit each law once."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.bytes = b"".join(column.tobytes() for column in (runs.P, runs.N, runs.L_ft, runs.L_f))

    def __hash__(self) -> int:
        return hash(self.bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self.bytes == other.bytes


@cache
def r2(numbers: Numbers, law: str) -> float | None:
    """R² of L_f under a law fitted to one base's runs; None if they do not determine it."""
    try:
        if law == "line":
            return LineFit(bootstraps=0).fit(numbers.runs).r2_
        return JointFit(bootstraps=0).fit(numbers.runs).r2_[1]
    except ConfigError:  # one P, or forgetting that does not rise
        return None


def figure(rows: list[Row]) -> Any:
    """Left, forgetting against task loss along all runs; right, R² of both laws."""
    drawn, (path, fits) = panels(2.9, width_ratios=(1.1, 1))
    for (tuning, name), colour, mark in zip(NAMES.items(), COLOURS, MARKS, strict=False):
        own = [row for row in late(rows) if row["tuning"] == tuning]
        points = [row["L_ft"] for row in own], [row["L_f"] - row["L_f_base"] for row in own]
        path.plot(*points, mark, color=colour, markersize=2.4, alpha=0.6, label=name)
    path.invert_xaxis()
    path.set_xlabel("task loss $L_{ft}$, nats per token (learning goes right)")
    path.set_ylabel("rise of $L_f$, nats per token")
    path.set_title("every reading of every run")
    path.legend(markerscale=1.6)
    heights = np.arange(len(GROUPS))[::-1]
    for law, colour, mark, shift in (("line", ORANGE, "s", 0.13), ("joint", BLUE, "o", -0.13)):
        label = LAWS[law]
        for height, group in zip(heights + shift, GROUPS, strict=True):
            found = interval(rows, law, group)
            if found is None:
                continue
            if found.low is not None:
                fits.plot([max(found.low, 0.0), found.high], [height, height], color=colour, linewidth=1.2)
            fits.plot(max(found.value, 0.0), height, mark, color=colour, markersize=4, label=label)
            label = ""
    fits.set_yticks(heights, list(GROUPS))
    fits.set_xlim(-0.02, 1.02)
    fits.set_xlabel("$R^2$ of $L_f$, mean and 95 % interval over seeds")
    fits.set_title("how well the laws fit")
    drawn.legend(*fits.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return drawn


def table(rows: list[Row]) -> str:
    """R² of each group of runs, and the slope of the line."""
    lines = []
    for name, tunings in GROUPS.items():
        sizes = sorted({row["P"] for row in rows if row["tuning"] in tunings})
        sized = f"{sizes[0]:,}–{sizes[-1]:,}" if len(sizes) > 1 else f"{sizes[0]:,}"
        slopes = [LineFit(bootstraps=0).fit(runs_of(rows, name, seed)).law_.c for seed in values(rows, "seed")]
        line, joint = (
            format_interval(interval(rows, "line", name)),
            format_interval(interval(rows, "joint", name), none="–"),
        )
        lines.append([name, sized.replace(",", " "), f"{-np.mean(slopes):.2f}", line, joint])
    head = ["runs fitted together", "tuned parameters", "slope of the line, −c", "R², line (4)", "R², joint law (6)"]
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """The check in the paper's appendix, and both laws for each way of tuning."""

    def claim(text: str, paper: str | None, law: str, group: str, **bound: Any) -> Claim | None:
        ours = interval(rows, law, group)
        measure = f"R² of L_f, {group}, {LAWS[law]}"
        return None if ours is None else Claim(claim=text, paper=paper, measure=measure, ours=ours, **bound)

    def each(text: str, law: str, paper: str, *tunings: str) -> list[Claim | None]:
        return [
            claim(f"{text}: {NAMES[tuning]}", paper if tuning == "lora" else None, law, NAMES[tuning], above=0.9)
            for tuning in tunings
        ]

    line, joint = "forgetting is a line in the task loss", "the joint law of P and N holds"
    return measured(
        claim("the line fails for IA³ and top-layer tuning together", "R² .185", "line", POOLED, below=0.5),
        claim("the joint law holds for IA³ and top-layer tuning together", "R² .871", "joint", POOLED, above=0.8),
        *each(line, "line", "R² .945 and .974", "lora", "attention", "standard", "top", "ia3"),
        *each(joint, "joint", "R² .960 and .977", "lora", "attention", "top", "ia3"),
    )
