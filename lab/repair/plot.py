"""Figure, table and claims of repairs of small decoders."""

from __future__ import annotations

from typing import Any

from common.drawing import panels
from common.grid import Row
from common.stats import Claim, Interval, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import COLOURS, MARKS

NAMES = {
    "interpolate": "interpolation",
    "groups": "by group",
    "trim": "TIES trim",
    "dare": "DARE",
    "svd": "SVD",
    "tune": "self-repair",
    "replay": "replay from the start",
}
HOW = {"standard": "all weights", "lora": "LoRA"}
DATA = {"none": "without data", "given": "with the task's data"}
Shares = dict[int, tuple[float, float]]


def shares(rows: list[Row], candidate: str, **wanted: Any) -> Shares:
    """By seed: the share of the task's gain that a model lost, and the share of KL on held-out old text undone."""
    found: Shares = {}
    own = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    for row in own:
        if row["candidate"] != candidate:
            continue
        of_seed = {one["candidate"]: one for one in own if one["seed"] == row["seed"]}
        base, tuned = of_seed["base"], of_seed["tuned"]
        lost = (row["new_loss"] - tuned["new_loss"]) / (base["new_loss"] - tuned["new_loss"])
        found[row["seed"]] = lost, 1 - row["kl"] / tuned["kl"]
    return found


def mean(found: Shares, place: int) -> Interval | None:
    """The mean over seeds of one of the two shares."""
    return over_seeds([of_seed[place] for of_seed in found.values()]) if found else None


def cases(rows: list[Row]) -> list[tuple[str, str]]:
    """How the model was tuned and whether data was given, in the order of the table."""
    return [(how, data) for how in HOW for data in DATA if any((r["tuned"], r["data"]) == (how, data) for r in rows)]


def figure(rows: list[Row]) -> Any:
    """What was lost of the task against what was undone on held-out old text; without data left, with data right."""
    drawn, axes = panels(3.1, sharey=True)
    for axis, data in zip(axes, DATA, strict=True):
        for (name, label), colour, mark in zip(NAMES.items(), (*COLOURS, "#000000"), MARKS, strict=True):
            for how, filled in zip(HOW, ("full", "none"), strict=True):
                points = list(shares(rows, name, tuned=how, data=data).values())
                look = {"color": colour, "marker": mark, "linestyle": "none", "fillstyle": filled}
                xs, ys = [undone for _, undone in points], [lost for lost, _ in points]
                axis.plot(xs, ys, label=label if how == "standard" else None, **look)
        axis.set_title(DATA[data])
        axis.set_xlabel("share of KL undone, held-out old text")
    axes[0].set_ylabel("share of the task's gain lost")
    axes[0].legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each method by case, as means over seeds."""
    lines = []
    for how, data in cases(rows):
        for name, label in NAMES.items():
            found = shares(rows, name, tuned=how, data=data)
            numbers = [format_interval(mean(found, place), none="none within the budget") for place in (0, 1)]
            lines.append([HOW[how], DATA[data], label, *numbers, str(len(found))])
    head = ["tuned", "repaired", "by", "task gain lost", "KL undone, held-out old text", "seeds"]
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Bounds on self-repair and on the methods of weights; each was set before any run."""
    found: list[Claim | None] = []
    bounds = {"none": (0.1, 0.7), "given": (0.05, 0.8)}
    for how, data in cases(rows):
        own = shares(rows, "tune", tuned=how, data=data)
        most, least = bounds[data]
        case = f"{HOW[how]}, {DATA[data]}"
        lost, undone = ([of_seed[place] for of_seed in own.values()] for place in (0, 1))
        found += [
            claim_over_seeds(
                f"self-repair loses less than {most:.0%} of the task's gain ({case})",
                "share of the gain lost, held-out text",
                lost,
                below=most,
            ),
            claim_over_seeds(
                f"self-repair undoes over {least:.0%} of the drift on text that it never saw ({case})",
                "share of KL undone, held-out old text",
                undone,
                above=least,
            ),
        ]
        for better, worse in (("tune", "interpolate"), ("groups", "interpolate"), ("interpolate", "trim")):
            first, second = (shares(rows, name, tuned=how, data=data) for name in (better, worse))
            found.append(
                claim_over_seeds(
                    f"{NAMES[better]} loses less than {NAMES[worse]} within the same budget ({case})",
                    "difference of the shares of the gain lost",
                    [first[seed][0] - second[seed][0] for seed in first.keys() & second.keys()],
                    below=0.0,
                )
            )
        ceiling = shares(rows, "replay", tuned=how, data=data)
        found.append(
            claim_over_seeds(
                f"replay from the start keeps more of the old text than self-repair ({case})",
                "difference of the shares of KL undone, held-out old text",
                [ceiling[seed][1] - own[seed][1] for seed in ceiling.keys() & own.keys()],
                above=0.0,
            )
        )
    return measured(*found)
