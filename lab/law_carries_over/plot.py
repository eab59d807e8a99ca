"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/law_carries_over/plot.py
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import told
from grid import Row, draw
from stats import Claim, Interval, over_seeds

from keeptune.errors import ConfigError
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.readings import Runs

HERE = Path(__file__).resolve().parent
# The first tenth of a run is left out of fits: the rate warms up, and L_ft is the base's. The paper leaves out a fifth.
AFTER = 0.1
NAMES = {
    "lora": "LoRA, all linear layers",
    "attention": "LoRA, attention only",
    "standard": "all weights",
    "top": "top layers",
    "ia3": "IA³",
}
GROUPS: dict[str, tuple[str, ...]] = {
    **{name: (tuning,) for tuning, name in NAMES.items()},
    "IA³ and top layers": ("ia3", "top"),
    "all five": tuple(NAMES),
}
LAWS = {"line": "line (4)", "joint": "joint law (6)"}


def runs_of(rows: list[Row], tunings: tuple[str, ...], seed: int) -> Runs:
    """The readings of some ways of tuning with one seed: runs of one base."""
    after = AFTER * max(row["N"] for row in rows)
    own = [row for row in rows if row["tuning"] in tunings and row["seed"] == seed and row["N"] > after]
    names = list(dict.fromkeys((row["tuning"], row["P"]) for row in own))
    columns = {name: np.array([row[name] for row in own], dtype=np.float64) for name in ("P", "N", "L_ft", "L_f")}
    return Runs(**columns, run=np.array([names.index((row["tuning"], row["P"])) for row in own]))


def r2(rows: list[Row], law: str, tunings: tuple[str, ...]) -> list[float]:
    """R² of L_f, a seed at a time; without the seeds whose runs determine no such law."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        value = _r2(_Hashed(runs_of(rows, tunings, seed)), law)
        if value is not None:
            found.append(value)
    return found


class _Hashed:
    """Runs that are equal where their numbers are: claims, table and figure fit each law once."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.key = (runs.P.tobytes(), runs.N.tobytes(), runs.L_ft.tobytes(), runs.L_f.tobytes())

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.key == other.key


@cache
def _r2(hashed: _Hashed, law: str) -> float | None:
    try:
        if law == "line":
            return LineFit(bootstraps=0).fit(hashed.runs).r2_
        return JointFit(bootstraps=0).fit(hashed.runs).r2_[1]
    except ConfigError:  # one P, or forgetting that does not rise
        return None


def interval(rows: list[Row], law: str, tunings: tuple[str, ...]) -> Interval | None:
    """Mean over seeds with Student's t, at most 1; None if no seed determines the law."""
    values = r2(rows, law, tunings)
    return over_seeds(values, most=1.0) if values else None


def figure(rows: list[Row]) -> Any:
    """Left, forgetting against task loss along all runs; right, R² of both laws."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, COLOURS, MARKS, ORANGE, PAGE  # noqa: PLC0415

    drawn, (path, fits) = plt.subplots(1, 2, figsize=(PAGE, 2.9), width_ratios=(1.1, 1))
    after = AFTER * max(row["N"] for row in rows)
    for (tuning, name), colour, mark in zip(NAMES.items(), COLOURS, MARKS, strict=False):
        own = [row for row in rows if row["tuning"] == tuning and row["N"] > after]
        rise = [row["L_f"] - row["L_f_base"] for row in own]
        path.plot([row["L_ft"] for row in own], rise, mark, color=colour, markersize=2.4, alpha=0.6, label=name)
    path.invert_xaxis()
    path.set_xlabel("task loss $L_{ft}$, nats per token (learning goes right)")
    path.set_ylabel("rise of $L_f$, nats per token")
    path.set_title("every reading of every run")
    path.legend(markerscale=1.6)
    heights = np.arange(len(GROUPS))[::-1]
    for law, colour, mark, shift in (("line", ORANGE, "s", 0.13), ("joint", BLUE, "o", -0.13)):
        label = LAWS[law]
        for height, tunings in zip(heights + shift, GROUPS.values(), strict=True):
            found = interval(rows, law, tunings)
            if found is None:
                continue
            if found.low is not None:
                fits.plot([max(found.low, 0.0), min(found.high, 1.0)], [height, height], color=colour, linewidth=1.2)
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
    lines = [
        "| runs fitted together | tuned parameters | slope of the line, −c | R², line (4) | R², joint law (6) |",
        "|---|---|---|---|---|",
    ]
    for name, tunings in GROUPS.items():
        sizes = sorted({row["P"] for row in rows if row["tuning"] in tunings})
        sized = f"{sizes[0]:,}–{sizes[-1]:,}" if len(sizes) > 1 else f"{sizes[0]:,}"
        seeds = sorted({row["seed"] for row in rows})
        slopes = [LineFit(bootstraps=0).fit(runs_of(rows, tunings, seed)).law_.c for seed in seeds]
        joint = interval(rows, "joint", tunings)
        cells = [name, sized.replace(",", " "), f"{-np.mean(slopes):.2f}", told(interval(rows, "line", tunings))]
        lines.append(f"| {' | '.join(cells)} | {'–' if joint is None else told(joint)} |")
    return "\n".join(lines)


def claims(rows: list[Row]) -> list[Claim]:
    """The paper's check in its appendix, and both laws in each way of tuning."""

    def claim(text: str, paper: str | None, law: str, group: str, **bound: float) -> Claim | None:
        ours = interval(rows, law, GROUPS[group])
        measure = f"R² of L_f, {group}, {LAWS[law]}"
        return None if ours is None else Claim(claim=text, paper=paper, measure=measure, ours=ours, **bound)

    pooled = "IA³ and top layers"
    said = [
        claim("the line fails for IA³ and top-layer tuning together", "R² .185", "line", pooled, below=0.5),
        claim("the joint law holds for IA³ and top-layer tuning together", "R² .871", "joint", pooled, above=0.8),
    ]
    for tuning in ("lora", "attention", "standard", "top", "ia3"):
        name, paper = NAMES[tuning], "R² .945 and .974" if tuning == "lora" else None
        said.append(claim(f"forgetting is a line in the task loss: {name}", paper, "line", name, above=0.9))
    for tuning in ("lora", "attention", "top", "ia3"):
        name, paper = NAMES[tuning], "R² .960 and .977" if tuning == "lora" else None
        said.append(claim(f"the joint law of P and N holds: {name}", paper, "joint", name, above=0.9))
    return [one for one in said if one is not None]


if __name__ == "__main__":
    draw(HERE, figure)
