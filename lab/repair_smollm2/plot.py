"""Figure, table and claims of repairs of SmolLM2."""

from __future__ import annotations

from typing import Any

from common.drawing import panels
from common.grid import Row
from common.stats import Claim, claim_over_seeds, measured
from common.tables import markdown
from keeptune.plot_style import COLOURS, MARKS
from repair.plot import NAMES, Shares, mean, shares

SUBJECTS = {"plain": "the demo's plain model", "lora": "LoRA, rank 16", "chats": "tuned on chats"}
GIVEN = {"nothing": "without data", "data": "with the task's data"}


def cases(rows: list[Row]) -> list[tuple[str, str]]:
    """What was tuned and what was given, in the order of the table."""
    there = {(row["subject"], row["given"]) for row in rows}
    return [(subject, given) for subject in SUBJECTS for given in GIVEN if (subject, given) in there]


def figure(rows: list[Row]) -> Any:
    """What was lost of the task against what was undone on WikiText-2; without data left, with data right."""
    drawn, axes = panels(3.1, sharey=True)
    for axis, given in zip(axes, GIVEN, strict=True):
        for (name, label), colour in zip(NAMES.items(), (*COLOURS, "#000000"), strict=True):
            for place, subject in enumerate(SUBJECTS):
                points = list(shares(rows, name, subject=subject, given=given).values())
                look = {"color": colour, "marker": MARKS[place], "linestyle": "none"}
                xs, ys = [undone for _, undone in points], [lost for lost, _ in points]
                axis.plot(xs, ys, label=label if place == 0 else None, **look)
        axis.set_title(GIVEN[given])
        axis.set_xlabel("share of KL undone, WikiText-2")
    axes[0].set_ylabel("share of the task's gain lost")
    axes[0].legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each method by case."""
    lines = []
    for subject, given in cases(rows):
        for name, label in NAMES.items():
            found = shares(rows, name, subject=subject, given=given)
            numbers = [_share(found, place) for place in (0, 1)]
            lines.append([SUBJECTS[subject], GIVEN[given], label, *numbers])
    return markdown(["tuned", "repaired", "by", "task gain lost", "KL undone, WikiText-2"], lines)


def _share(found: Shares, place: int) -> str:
    value = mean(found, place)
    return "none within the budget" if value is None else f"{value.value:.1%}"


def claims(rows: list[Row]) -> list[Claim]:
    """The targets of a repair, set before any run; one run each, so that nothing here gets a verdict on two cores."""
    found: list[Claim | None] = []
    bounds = {"nothing": (0.1, 0.7), "data": (0.05, 0.8)}
    for subject, given in cases(rows):
        own = shares(rows, "tune", subject=subject, given=given)
        most, least = bounds[given]
        case = f"{SUBJECTS[subject]}, {GIVEN[given]}"
        found += [
            claim_over_seeds(
                f"self-repair loses at most {most:.0%} of the task's gain ({case})",
                "share of the gain lost, held-out documents",
                [lost for lost, _ in own.values()],
                below=most,
            ),
            claim_over_seeds(
                f"self-repair undoes at least {least:.0%} of the drift on WikiText-2 ({case})",
                "share of KL undone, WikiText-2",
                [undone for _, undone in own.values()],
                above=least,
            ),
        ]
    return measured(*found)
