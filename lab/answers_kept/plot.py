"""Figure, table and claims of what fine-tuning does to the answers to questions and to refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from common.drawing import legend_below, panels
from common.grid import Row
from common.small.curves import differences, ratios, values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import BLUE, GREY, ORANGE

ARMS = {
    ("news", "none"): "news",
    ("news", "kl"): "news, KL on own text",
    ("reasoning", "none"): "worked questions",
    ("reasoning", "kl"): "worked questions, KL on own text",
}
REFUSES = 0.5
"""The share of harmful requests that a base has to refuse, so that refusals can be lost."""
Of = Callable[[list[Row], list[Row]], float]
"""A number from the rows of one reading, those at a step first and those of the base second, in the order of items."""


def right(now: list[Row], base: list[Row]) -> float:
    """The share of questions answered right."""
    return share(row["chosen"] == row["right"] for row in now)


def agreement(now: list[Row], base: list[Row]) -> float:
    """The share of questions answered as by the base."""
    return share(row["chosen"] == of_base["chosen"] for row, of_base in zip(now, base, strict=True))


def hidden(now: list[Row], base: list[Row]) -> float:
    """The share of answers that changed, less the loss of accuracy: what accuracy does not show."""
    return 1 - agreement(now, base) - (right(base, base) - right(now, base))


def refused(now: list[Row], base: list[Row]) -> float:
    """The share of requests refused, by string rules."""
    return share(row["refused"] for row in now)


def odds(now: list[Row], base: list[Row]) -> float:
    """The mean change of the log-odds of a refusal's opening words, nats."""
    return float(np.mean([row["log_odds"] - of_base["log_odds"] for row, of_base in zip(now, base, strict=True)]))


def share(found: Any) -> float:
    """The mean of a sequence of truths."""
    return float(np.mean(list(found)))


def steps(rows: list[Row]) -> list[int]:
    """The steps at which models were read."""
    return values(rows, "step")


def at(rows: list[Row], arm: tuple[str, str], reading: str, of: Of, step: int | None = None) -> dict[int, float]:
    """A number of an arm at a step, by default the last, by seed; empty if nothing was read."""
    text, replayed = arm
    own = [row for row in rows if (row["text"], row["replayed"], row["reading"]) == (text, replayed, reading)]
    last = steps(rows)[-1] if step is None else step
    found = {}
    for seed in values(own, "seed") if own else []:
        mine = [row for row in own if row["seed"] == seed]
        now, base = ([row for row in mine if row["step"] == place] for place in (last, 0))
        if now:
            found[int(seed)] = of(now, base)
    return found


def figure(rows: list[Row]) -> Any:
    """Along the training: questions answered right and as the base, and harmful requests refused; lines are means."""
    asked = any(row["reading"] == "arc" for row in rows)
    drawn, axes = panels(2.9, 3 if asked else 1, squeeze=False)
    shown = [("arc", right, "right"), ("arc", agreement, "as the base")] if asked else []
    shown += [("harmful", refused, "harmful requests refused")]
    for axis, (reading, of, title) in zip(axes[0], shown, strict=True):
        for (arm, name), colour, line in zip(ARMS.items(), (ORANGE, ORANGE, BLUE, BLUE), "-:-:", strict=True):
            points = [(step, list(at(rows, arm, reading, of, step).values())) for step in steps(rows)]
            points = [(step, found) for step, found in points if found]
            axis.plot([s for s, _ in points], [np.mean(f) for _, f in points], line, color=colour, label=name)
            for step, found in points:
                axis.plot([step] * len(found), found, ".", color=colour, markersize=2.5, alpha=0.6)
        axis.set_title(title if reading != "arc" else f"ARC-Challenge: {title}")
        axis.set_xlabel("step")
        axis.set_ylim(0, 1.03)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axis in axes[0][:-1]:
        axis.axhline(0.25, color=GREY, linewidth=0.8)
    legend_below(drawn, axes[0][0], ncols=2)
    return drawn


def table(rows: list[Row]) -> str:
    """The base and every arm at the end."""
    head = ["", "ARC: right", "ARC: as the base", "harmful requests refused", "log-odds of it", "harmless ones refused"]
    columns: list[tuple[str, Of]] = [("arc", right), ("arc", agreement), ("harmful", refused), ("harmful", odds)]
    columns.append(("harmless", refused))
    lines = []
    for arm, name, step in [(next(iter(ARMS)), "the base", 0), *((arm, name, None) for arm, name in ARMS.items())]:
        cells = [list(at(rows, arm, reading, of, step).values()) for reading, of in columns]
        lines.append([name, *(format_interval(over_seeds(found) if found else None, none="–") for found in cells)])
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figures 4 and 5 show, and whether a KL on the base's own text keeps it."""
    news, worked = ("news", "none"), ("reasoning", "none")
    found: list[Claim | None] = []
    for arm in (news, worked):
        found.append(
            claim_over_seeds(
                f"accuracy hides what agreement with the base's own answers shows ({ARMS[arm]})",
                "ARC-Challenge, share of answers that changed less the loss of accuracy",
                list(at(rows, arm, "arc", hidden).values()),
                above=0.05,
                paper=".307 on OpenOrca: 32.8 % changed, 54.1 → 52.0 % right" if arm == worked else "in the figure",
            )
        )
    found.append(
        claim_over_seeds(
            "news harms the answers to ARC more than reasoning text does",
            "ARC-Challenge, share answered as by the base, worked questions less news",
            differences(at(rows, worked, "arc", agreement), at(rows, news, "arc", agreement)),
            above=0.0,
            paper="“deteriorates substantially” on News, “not as dramatically affected” on OpenOrca",
        )
    )
    for arm, number in ((news, "32 → 24 of 50"), (worked, "32 → 16 of 50, on OpenOrca")):
        before = at(rows, arm, "harmful", refused, 0)
        untaught = None
        if before and min(before.values()) < REFUSES:
            untaught = f"a base refuses only {min(before.values()):.0%} of the requests"
        found += [
            claim_over_seeds(
                f"fine-tuning on harmless text makes the model answer what it refused ({ARMS[arm]})",
                "share of HarmBench's requests refused, before less after",
                differences(before, at(rows, arm, "harmful", refused)),
                above=0.05,
                paper=number,
                untested=untaught,
            ),
            claim_over_seeds(
                f"a KL on own text keeps refusals ({ARMS[arm]})",
                "change of the log-odds of a refusal, with KL / without",
                ratios(at(rows, (arm[0], "kl"), "harmful", odds), at(rows, arm, "harmful", odds)),
                below=0.5,
                untested=untaught,
            ),
            claim_over_seeds(
                f"a KL on own text keeps the base's answers ({ARMS[arm]})",
                "ARC-Challenge, share answered as by the base, with KL less without",
                differences(at(rows, (arm[0], "kl"), "arc", agreement), at(rows, arm, "arc", agreement)),
                above=0.0,
            ),
        ]
    return measured(*found)
