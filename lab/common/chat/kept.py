"""What tuned chat models kept, compared on the same documents, items and prompts: estimates, table and figure.

Drift is KL(base‖tuned), nats per token. With one training run per method, intervals resample documents, items or
prompts, the same ones for both models of a comparison; they say nothing about other runs. With several seeds, intervals
are over seeds.

Shapes: U units, which are documents, items or prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.drawing import logarithmic, panels
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, Interval, over_seeds, over_units
from common.tables import format_interval, markdown
from keeptune.plot_style import BLUE, GREEN, GREY, MARKS, ORANGE
from keeptune.stats import bootstrap_ratio, wilson

Array = npt.NDArray[np.float64]
Value = Callable[[Row], float]
TEXTS = {
    "document": "its own documents",
    "chat": "its own chats",
    "wikitext": "WikiText-2",
    "pydoc": "Python's help pages",
}


def of(rows: list[Row], method: str, reading: str) -> list[Row]:
    """A method's rows of one reading, in the order of seeds and units."""
    own = (row for row in rows if row["method"] == method and row["reading"] == reading)
    return sorted(own, key=lambda row: (row["seed"], row["unit"]))


def methods(rows: list[Row]) -> list[str]:
    """The methods that have rows, in the order of the grid."""
    return list(dict.fromkeys(row["method"] for row in rows))


def real_text(rows: list[Row]) -> str:
    """The text that neither the base wrote nor any run replayed."""
    return "wikitext" if any(row["reading"] == "wikitext" for row in rows) else "pydoc"


def estimate(own: list[Row], numerator_U: Array, denominator_U: Array) -> Interval:
    """Σ numerator / Σ denominator over units: over seeds, or with one seed by a bootstrap of the units."""
    seeds = np.array([row["seed"] for row in own])
    each = [seeds == seed for seed in np.unique(seeds)]
    if len(each) > 1:
        return over_seeds([float(numerator_U[mine].sum() / denominator_U[mine].sum()) for mine in each])
    return over_units(bootstrap_ratio(numerator_U, denominator_U))


def drift_of(row: Row) -> float:
    """Drift summed over the tokens of a document, nats."""
    return float(row["kl"] * row["tokens"])


def same_answer(row: Row) -> float:
    """Whether both models choose the same option."""
    return float(row["chosen"] == row["base_chosen"])


def right_answer(row: Row) -> float:
    """Whether the tuned model chooses the right option."""
    return float(row["chosen"] == row["right"])


def moved_odds(row: Row) -> float:
    """How far the log-odds of a refusal's opening words moved in either direction, nats."""
    return float(abs(row["log_odds"] - row["base_log_odds"]))


def array(own: list[Row], value: Value) -> Array:
    """A value of every unit, [U]."""
    return np.array([value(row) for row in own], dtype=np.float64)


def mean(rows: list[Row], method: str, reading: str, column: str) -> Interval:
    """A column's mean over the tokens of a text."""
    own = of(rows, method, reading)
    tokens_U = array(own, lambda row: row["tokens"])
    value_U = array(own, lambda row: row[column]) * tokens_U
    return estimate(own, value_U, tokens_U)


def ratio(rows: list[Row], first: str, second: str, reading: str, value: Value = drift_of) -> Interval:
    """A value summed over the first method's units, as a multiple of the sum over the second's."""
    own = of(rows, first, reading)
    first_U, second_U = array(own, value), array(of(rows, second, reading), value)
    return estimate(own, first_U, second_U)


def difference(rows: list[Row], first: str, second: str, reading: str, value: Value) -> Interval:
    """Mean of a value over the first method's items minus that over the second's, paired by item."""
    own = of(rows, first, reading)
    gap_U = array(own, value) - array(of(rows, second, reading), value)
    return estimate(own, gap_U, np.ones(len(own)))


def counted(rows: list[Row], method: str, value: Value) -> Interval | None:
    """The share of the items of ARC-Challenge that have the value, with Wilson's interval; None if none were asked."""
    own = of(rows, method, "arc")
    if not own:
        return None
    if len(values(own, "seed")) > 1:
        value_U = array(own, value)
        return estimate(own, value_U, np.ones(len(own)))
    found = wilson(int(array(own, value).sum()), len(own))
    return Interval(found.value, found.low, found.high, len(own))


def odds_change(rows: list[Row], method: str) -> tuple[str, Interval]:
    """The prompts that were read, and the mean change of the log-odds of a refusal's opening words, nats."""
    reading = "refusals" if of(rows, method, "refusals") else "harmless"
    own = of(rows, method, reading)
    gap_U = array(own, lambda row: row["log_odds"] - row["base_log_odds"])
    return reading, estimate(own, gap_U, np.ones(len(own)))


def claim(rows: list[Row], text: str, measure: str, ours: Interval, **given: Any) -> Claim:
    """A claim with the number of training runs behind it."""
    return Claim(claim=text, measure=measure, ours=ours, runs=len(values(rows, "seed")), **given)


def table(rows: list[Row], names: dict[str, str]) -> str:
    """Every method in numbers."""
    texts = ["document", "chat", real_text(rows)]
    asked = any(row["reading"] == "arc" for row in rows)
    prompts = "harmful" if any(row["reading"] == "refusals" for row in rows) else "harmless"
    head = ["", "steps", "task loss", *(f"drift on {TEXTS[text]}" for text in texts)]
    head += ["ARC: as the base", "ARC: right"] if asked else []
    lines = []
    for method in (method for method in names if method in methods(rows)):
        steps = max(row["unit"] for row in of(rows, method, "training"))
        cells = [names[method], str(steps), f"{mean(rows, method, 'task', 'loss').value:.3f}"]
        cells += [format_interval(mean(rows, method, text, "kl")) for text in texts]
        shares = [counted(rows, method, value) for value in (same_answer, right_answer)] if asked else []
        cells += [format_interval(share_, none="") for share_ in shares]
        lines.append([*cells, format_interval(odds_change(rows, method)[1], 2, sign="+")])
    base = of(rows, methods(rows)[0], "task")
    loss = sum(row["base_loss"] * row["tokens"] for row in base) / sum(row["tokens"] for row in base)
    items = of(rows, methods(rows)[0], "arc")
    right = ["1", f"{np.mean([row['base_chosen'] == row['right'] for row in items]):.3f}"] if asked else []
    lines.append(["the base", "0", f"{loss:.3f}", "0", "0", "0", *right, "0"])
    return markdown([*head, f"log-odds of refusing {prompts} prompts, change"], lines)


def figure(rows: list[Row], names: dict[str, str]) -> Any:
    """Drift on three texts, answers that stayed the base's, and the odds of a refusal, a line per method."""
    shown = [method for method in names if method in methods(rows)]
    drawn, (drift, answers, odds) = panels(0.33 * len(shown) + 1.25, 3, width_ratios=(1.7, 1, 1), sharey=True)
    heights = np.arange(len(shown))[::-1]
    texts = ["document", "chat", real_text(rows)]
    for number, (text, colour) in enumerate(zip(texts, (BLUE, ORANGE, GREEN), strict=True)):
        drifts = [mean(rows, method, text, "kl") for method in shown]
        _points(drift, drifts, heights + 0.2 * (1 - number), colour, MARKS[number], TEXTS[text])
    logarithmic(drift, "x")
    drift.set_xlabel("KL(base‖tuned), nats per token")
    drift.set_title("drift on text")
    handles, labels = drift.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower left", ncols=3)
    shares = [counted(rows, method, same_answer) for method in shown]
    _points(answers, [value for value in shares if value is not None], heights[: len(shown)], GREY, "o", "")
    answers.set_xlabel("share of the questions")
    answers.set_title("ARC: the base's answer")
    prompts = "harmful" if odds_change(rows, shown[0])[0] == "refusals" else "harmless"
    _points(odds, [odds_change(rows, method)[1] for method in shown], heights, GREY, "o", "")
    odds.axvline(0, color=GREY, linewidth=0.8)
    odds.set_xlabel(f"change of log-odds, nats,\n{prompts} prompts")
    odds.set_title("odds of a refusal")
    drift.set_yticks(heights, [names[method] for method in shown])
    drift.set_ylim(-0.6, len(shown) - 0.4)
    return drawn


def _points(axis: Any, means: Sequence[Interval], heights: Any, colour: str, mark: str, label: str) -> None:
    for value, height in zip(means, heights, strict=False):
        axis.plot([value.low, value.high], [height, height], color=colour, linewidth=1.2)
        axis.plot(value.value, height, mark, color=colour, markersize=4, label=label)
        label = ""
