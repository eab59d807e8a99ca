"""Figure, table and claims of what each family of methods keeps after equal processor time and at equal task loss.

A curve is a run's readings from the base on; or, for interpolation, the weights between the base and a run's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from scipy.stats import spearmanr

from common.drawing import legend_below, panels
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import AMBER, BLUE, GREEN, GREY, MARKS, ORANGE, PINK, SKY

CHOOSER = 9
"""The seed that chooses an arm for each family; the others are reported."""
FAMILIES = {
    "plain": "plain fine-tuning",
    "interpolation": "interpolation to the base",
    "lora": "LoRA",
    "ntp": "next-token loss on own text",
    "kl": "KL on own text",
    "kl-interpolation": "KL on own text, then interpolation to the base",
    "lora-kl": "LoRA with KL on own text",
}
COLOURS = dict(zip(FAMILIES, (GREY, SKY, ORANGE, PINK, BLUE, AMBER, GREEN), strict=True))
INTERPOLATED = {"interpolation": "plain", "kl-interpolation": "kl"}
"""Families of weights between the base and the end of a run, and whose runs those are."""
COLUMNS = ("own_kl", "own_change", "old_kl", "old_change", "repeating", "seconds")

Curve = list[Row]


def family(arm: str) -> str:
    """The family of an arm, from its name."""
    kind = "".join(letter for letter in arm.split("-")[0] if letter.isalpha())
    return "lora-kl" if kind == "lora" and "-kl" in arm else kind


def curve(rows: list[Row], arm: str, seed: int, *, interpolated: bool = False) -> Curve:
    """The readings of a run in order, the base first; or those between the base and the run's end."""
    own = [{**row, "seconds": row["train_seconds"] + row["write_seconds"]} for row in rows]
    own = [row for row in own if row["arm"] == arm and row["seed"] == seed]
    if not own:
        return []
    last = max(row["step"] for row in own)
    if interpolated:
        between = [row for row in own if row["step"] == last and row["share"] < 1]
        base = {**min(own, key=lambda row: row["step"]), "seconds": max(row["seconds"] for row in own)}
        return [base, *sorted(between, key=lambda row: row["share"])] if between else []
    return sorted((row for row in own if row["share"] == 1), key=lambda row: row["step"])


def at(readings: Curve, target: float, seconds: float) -> dict[str, float] | None:
    """The columns where the task loss first passes `target`, on the line between two readings; None if it is passed
    later than `seconds`, or never."""
    for before, after in pairwise(readings):
        high, low = before["task_loss"], after["task_loss"]
        if low <= target < high:
            part = (high - target) / (high - low)
            found = {name: before[name] + part * (after[name] - before[name]) for name in COLUMNS}
            return found if found["seconds"] <= seconds else None
    return None


def curves(rows: list[Row], name: str, seed: int) -> dict[str, Curve]:
    """The curves of a family's arms, by the arm's name."""
    interpolated = name in INTERPOLATED
    kind = INTERPOLATED.get(name, name)
    arms = [arm for arm in values(rows, "arm") if family(str(arm)) == kind]
    found = {str(arm): curve(rows, str(arm), seed, interpolated=interpolated) for arm in arms}
    return {arm: readings for arm, readings in found.items() if readings}


def chosen(rows: list[Row], name: str) -> str | None:
    """The arm with the least drift on own text, by the seed that chooses; None if none gets there in time."""
    reached = {arm: at(of_arm, *bound(rows)) for arm, of_arm in curves(rows, name, CHOOSER).items()}
    drifts = {arm: found["own_kl"] for arm, found in reached.items() if found}
    return min(drifts, key=lambda arm: drifts[arm]) if drifts else None


def bound(rows: list[Row]) -> tuple[float, float]:
    """The task loss, and the processor seconds, at which methods are compared."""
    return rows[0]["task_loss_reached"], rows[0]["minutes"] * 60


def seeds(rows: list[Row]) -> list[int]:
    """The seeds that are reported: without others, as at size smoke, the one that chooses."""
    return [int(seed) for seed in values(rows, "seed") if seed != CHOOSER] or [CHOOSER]


def reported(rows: list[Row], name: str) -> dict[int, dict[str, float]]:
    """The columns of a family's chosen arm where it reaches the task loss, by seed."""
    arm = chosen(rows, name)
    found = {seed: at(curves(rows, name, seed).get(arm or "", []), *bound(rows)) for seed in seeds(rows)}
    return {seed: columns for seed, columns in found.items() if columns}


def table(rows: list[Row]) -> str:
    """Each family's chosen arm at the task loss."""
    head = ["", "arm", "minutes", "drift, own text", "drift, `pydoc`", "rise of loss, `pydoc`", "answers that loop"]
    lines = []
    for name, words in FAMILIES.items():
        found = list(reported(rows, name).values())
        shown = [_over([columns["seconds"] / 60 for columns in found], 1)]
        shown += [_over([columns[column] for columns in found]) for column in COLUMNS[:-1] if column != "own_change"]
        lines.append([words, chosen(rows, name) or "none in time", *shown])
    return markdown(head, lines)


def _over(found: Sequence[float], digits: int = 3) -> str:
    return format_interval(over_seeds(list(found)), digits) if found else "not reached"


def claims(rows: list[Row]) -> list[Claim]:
    """What replay keeps, as a part of what the best of each other family keeps."""
    ours = reported(rows, "kl")

    def ratios(name: str, column: str) -> list[float]:
        other = reported(rows, name)
        return [ours[seed][column] / other[seed][column] for seed in ours if seed in other]

    def than(name: str, column: str, where: str, below: float) -> Claim | None:
        return claim_over_seeds(
            f"in equal time and at equal task loss, KL on own text drifts less than {FAMILIES[name]}, {where}",
            f"drift of the best arm of KL / of {FAMILIES[name]}, {where}",
            ratios(name, column),
            below=below,
        )

    places = {"own_kl": "on own text", "old_kl": "on `pydoc`"}
    bounds = {"plain": 0.5, "interpolation": 1.0, "lora": 0.5}
    after, alone = reported(rows, "kl-interpolation"), ours
    return measured(
        *(than(name, column, where, limit) for name, limit in bounds.items() for column, where in places.items()),
        *(
            claim_over_seeds(
                f"interpolation to the base after KL drifts less than KL alone, {where}",
                f"drift at equal task loss, KL then interpolation / KL alone, {where}",
                [after[seed][column] / alone[seed][column] for seed in after if seed in alone],
                below=1.0,
            )
            for column, where in places.items()
        ),
        claim_over_seeds(
            "answers that loop follow KL rather than the change of loss",
            "rank correlation with the share of looping answers over readings: KL on `pydoc` less change of loss",
            [apart for seed in seeds(rows) if (apart := foretold(rows, seed)) is not None],
            above=0.0,
        ),
    )


def foretold(rows: list[Row], seed: int) -> float | None:
    """How much better KL on old text ranks a seed's readings by their looping answers than the change of loss does.

    None if the share of looping answers is the same in all.
    """
    own = [row for row in rows if row["seed"] == seed]
    looping = [row["repeating"] for row in own]
    if len(set(looping)) < 2:
        return None
    of_kl, of_change = (spearmanr([row[name] for row in own], looping).statistic for name in ("old_kl", "old_change"))
    return float(of_kl - of_change)


def figure(rows: list[Row]) -> Any:
    """Task loss against time, and drift against task loss on two texts: the best arm of each family, a line a seed."""
    drawn, (time_axis, own, old) = panels(2.9, 3)
    target, seconds = bound(rows)
    for mark, (name, words) in zip(MARKS, FAMILIES.items(), strict=False):
        arm, look = chosen(rows, name), {"color": COLOURS[name], "marker": mark}
        for seed in seeds(rows):
            readings = curves(rows, name, seed).get(arm or "", [])
            loss = [row["task_loss"] for row in readings]
            if name not in INTERPOLATED:
                time_axis.plot([row["seconds"] / 60 for row in readings], loss, label=words, **look)
            for axis, column in ((own, "own_kl"), (old, "old_kl")):
                axis.plot(loss, [row[column] for row in readings], label=words, **look)
            words = ""
    time_axis.axhline(target, color=GREY, linewidth=0.8)
    time_axis.axvline(seconds / 60, color=GREY, linewidth=0.8)
    time_axis.set(xlabel="processor minutes, writing included", ylabel="task loss, nats per token")
    for axis, title in ((own, "on its own text"), (old, "on pydoc")):
        axis.axvline(target, color=GREY, linewidth=0.8)
        axis.set(xlabel="task loss, nats per token", title=f"drift {title}")
        axis.set_ylim(bottom=0)
        axis.invert_xaxis()
    own.set_ylabel("KL(base‖tuned), nats per token")
    legend_below(drawn, own, ncols=3)
    return drawn
