"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/high_lr/plot.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import by_seed, mean_at, paired, runs, told, whole_seconds
from drawing import logarithmic, note, rate_word
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent
FAMILIES = {
    "standard": "no replay, by learning rate",
    "replace": "old rows in the batch, by share",
    "kl_real": "KL on old text, same settings",
    "kl_self": "KL on the base's own text, 1 to 16 rows a step",
}
# Where words stand beside their points, so that those of neighbours stay apart.
BESIDE = {"replace": {"ha": "right", "offset": (-8, -8)}, "kl_self": {"ha": "left", "offset": (7, -8)}}
SLOW, FAST = 1e-4, 1e-3
"""Learning rates of the comparison: the one from which on a lower rate hardly forgets less, and that of replay."""
EVEN = "kl_self-lambda10-rows16"
"""As many replay rows as task rows."""


def training_seconds(row: Row) -> float:
    """Processor seconds of the training alone."""
    seconds: float = row["seconds"]
    return seconds


def sampling_share(row: Row) -> float:
    """Of the processor seconds so far, those that made the replay text."""
    whole = whole_seconds(row)
    return 1 - training_seconds(row) / whole if whole else 0.0


def cases(rows: list[Row], method: str) -> list[Row]:
    """The first row of each setting of a method, in the order of the grid."""
    found = {row["case"]: row for row in reversed(rows) if row["method"] == method}
    return list(reversed(found.values()))


def figure(rows: list[Row]) -> Any:
    """Forgetting against processor seconds, both at the target: left training alone, right with its replay text."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, GREEN, GREY, ORANGE, PAGE  # noqa: PLC0415

    drawn, axes = plt.subplots(1, 2, figsize=(PAGE, 3.4), sharex=True, sharey=True)
    looks = {"standard": (GREY, "o"), "replace": (ORANGE, "s"), "kl_real": (GREEN, "D"), "kl_self": (BLUE, "^")}
    panels = (
        (training_seconds, "training alone, as the paper counts"),
        (whole_seconds, "with the making of what is replayed"),
    )
    for axis, (seconds, title) in zip(axes, panels, strict=True):
        for method, (colour, mark) in looks.items():
            draw_family(axis, rows, method, seconds, color=colour, marker=mark)
        logarithmic(axis, "x", "y")
        axis.set_title(title)
        axis.set_xlabel(f"processor seconds to a new loss of {rows[0]['target']:g}")
    axes[0].set_ylabel("forgetting there: rise of the old loss,\nnats per token, mean and 95 % intervals")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=2)
    return drawn


def draw_family(axis: Any, rows: list[Row], method: str, seconds: Callable[[Row], float], **look: Any) -> None:
    """The settings of a method as points with their intervals both ways; those of one axis joined by a line."""
    target, label = rows[0]["target"], FAMILIES[method]
    places = []
    for case in cases(rows, method):
        group = runs(rows, case=case["case"])
        forgotten, _ = mean_at(group, target)
        times, _ = mean_at(group, target, seconds)
        if forgotten is None or times is None:
            continue
        places.append((times.value, forgotten.value))
        axis.errorbar(
            times.value,
            forgotten.value,
            xerr=None if times.low is None else [[times.value - times.low], [times.high - times.value]],
            yerr=None
            if forgotten.low is None
            else [[forgotten.value - forgotten.low], [forgotten.high - forgotten.value]],
            elinewidth=0.7,
            linestyle="none",
            label=label,
            **look,
        )
        label = None
        note(axis, times.value, forgotten.value, word(case), color=look["color"], **BESIDE.get(method, {}))
    if method in ("standard", "replace") and places:
        axis.plot(*zip(*places, strict=True), linewidth=0.9, color=look["color"])


def word(case: Row) -> str:
    """What tells a setting from the others of its method."""
    if case["method"] == "standard":
        return rate_word(case["learning_rate"])
    if case["method"] == "replace":
        return f"1/{1 / case['replaced']:g}"
    named = case["method"] == "kl_self" and case["replay_rows"] == 16
    return f"λ = {case['lambda_']:g}" if named else ""


def setting(case: Row) -> str:
    """A setting in the table: a rate, a share, or λ × rows a step."""
    return word(case) if case["method"] in ("standard", "replace") else f"{case['lambda_']:g} × {case['replay_rows']}"


def cheapest(rows: list[Row], method: str, seconds: Callable[[Row], float]) -> str | None:
    """The setting of a method that forgets no more than the slow rate does, and takes the least time, on the means.

    One setting for all seeds: the least of each seed's own would be low by their noise.
    """
    target, found = rows[0]["target"], []
    most, _ = mean_at(runs(rows, method="standard", learning_rate=SLOW), target)
    for case in cases(rows, method):
        group = runs(rows, case=case["case"])
        forgotten, reached = mean_at(group, target)
        times, _ = mean_at(group, target, seconds)
        if most and forgotten and times and reached == len(group) and forgotten.value <= most.value:
            found.append((times.value, case["case"]))
    return min(found)[1] if found else None


def times_cheaper(rows: list[Row], method: str, seconds: Callable[[Row], float]) -> tuple[str, Interval] | None:
    """The cheapest setting that forgets no more than the slow rate, and how many times longer the slow rate takes."""
    case, target = cheapest(rows, method, seconds), rows[0]["target"]
    if case is None:
        return None
    slow = by_seed(runs(rows, method="standard", learning_rate=SLOW), target, seconds)
    ratios = paired(slow, by_seed(runs(rows, case=case), target, seconds), lambda long, short: long / short)
    mean, low, high, units = over_seeds(np.log(ratios).tolist())
    ends = [None if end is None else float(np.exp(end)) for end in (low, high)]
    return case, Interval(float(np.exp(mean)), *ends, units)


def table(rows: list[Row]) -> str:
    """Each setting at the target loss."""
    target = rows[0]["target"]
    lines = [
        f"| at a new loss of {target:g} | forgetting | steps | seconds, training | seconds, with what is replayed |",
        "|---|---|---|---|---|",
    ]
    for method, name in FAMILIES.items():
        for case in cases(rows, method):
            group = runs(rows, case=case["case"])
            values = [mean_at(group, target)[0]]
            values += [mean_at(group, target, of)[0] for of in (training_seconds, whole_seconds)]
            steps, reached = mean_at(group, target, lambda row: row["step"])
            taken = f"{reached} of {len(group)} seeds get there" if steps is None else f"{steps.value:.0f}"
            numbers = f"{told(values[0])} | {taken} | {told(values[1], 1)} | {told(values[2], 1)}"
            lines.append(f"| {name.partition(',')[0]}: {setting(case)} | {numbers} |")
    return "\n".join(lines)


def claims(rows: list[Row]) -> list[Claim]:
    """The paper's multiple, with its clock (training alone) and with all processor time counted."""
    wanted = (
        ("replace", "old rows in the batch", training_seconds, "4.4 (12.7 s at 1e-4 to 2.9 s); 38 against 1e-5"),
        ("kl_real", "a KL on old text", whole_seconds, None),
        ("kl_self", "a KL on the base's own text, its sampling counted in,", whole_seconds, None),
    )
    found = []
    for method, name, seconds, paper in wanted:
        times = times_cheaper(rows, method, seconds)
        if times is not None:
            found.append(
                Claim(
                    claim=f"{name} at rate {FAST:g} is quicker than rate {SLOW:g} alone, forgetting no more",
                    paper=paper,
                    measure=f"times the processor seconds ({times[0]})",
                    ours=times[1],
                    above=1.0,
                )
            )
    shares = list(by_seed(runs(rows, case=EVEN), rows[0]["target"], sampling_share).values())
    if shares:
        found.append(
            Claim(
                claim="with as many replay rows as task rows, sampling is the lesser part of the time",
                measure=f"share of the processor seconds that making the replay text takes ({EVEN})",
                ours=over_seeds(shares),
                below=0.5,
            )
        )
    return found


if __name__ == "__main__":
    draw(HERE, figure)
