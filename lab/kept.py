"""What tuned chat models kept, against each other on the same documents, items and prompts: numbers and panels that
the experiments on chat models share, from the rows of their csv.

Drift is KL(base‖tuned), nats per token. Intervals resample documents, items or prompts, the same ones for both models
of a comparison. There is one training run a method and seed: they say nothing of other runs.

Shapes: U units: documents, items or prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from grid import Row
from stats import Interval, bootstrap

from keeptune.audit.paired import share

Array = npt.NDArray[np.float64]
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


def training_runs(rows: list[Row]) -> int:
    """Independent training runs of each method."""
    return len({row["seed"] for row in rows})


def real_text(rows: list[Row]) -> str:
    """The text that neither the base wrote nor any run replayed."""
    return "wikitext" if any(row["reading"] == "wikitext" for row in rows) else "pydoc"


def mean(rows: list[Row], method: str, reading: str, column: str) -> Interval:
    """A column's mean over the tokens of a text."""
    value_U, tokens_U = _sums(rows, method, reading, column)
    return bootstrap(lambda drawn: value_U[drawn].sum() / tokens_U[drawn].sum(), len(value_U))


def drift_ratio(rows: list[Row], first: str, second: str, reading: str) -> Interval:
    """The first method's drift on a text as a multiple of the second's."""
    first_U, second_U = (_sums(rows, method, reading, "kl")[0] for method in (first, second))
    return bootstrap(lambda drawn: first_U[drawn].sum() / second_U[drawn].sum(), len(first_U))


def _sums(rows: list[Row], method: str, reading: str, column: str) -> tuple[Array, Array]:
    own = of(rows, method, reading)
    tokens_U = np.array([row["tokens"] for row in own], dtype=np.float64)
    return np.array([row[column] for row in own]) * tokens_U, tokens_U


def difference(rows: list[Row], first: str, second: str, reading: str, value: Callable[[Row], float]) -> Interval:
    """Mean of a value over the first method's items, less that over the second's, item by item."""
    pairs = zip(of(rows, first, reading), of(rows, second, reading), strict=True)
    gap_U = np.array([value(one) - value(other) for one, other in pairs])
    return bootstrap(lambda drawn: gap_U[drawn].mean(), len(gap_U))


def ratio(rows: list[Row], first: str, second: str, reading: str, value: Callable[[Row], float]) -> Interval:
    """Sum of a value over the first method's units as a multiple of that over the second's."""
    first_U, second_U = (np.array([value(row) for row in of(rows, method, reading)]) for method in (first, second))
    return bootstrap(lambda drawn: first_U[drawn].sum() / second_U[drawn].sum(), len(first_U))


def same_answer(row: Row) -> float:
    """Whether both models choose the same option."""
    return float(row["chosen"] == row["base_chosen"])


def right_answer(row: Row) -> float:
    """Whether the tuned model chooses the right option."""
    return float(row["chosen"] == row["right"])


def moved_odds(row: Row) -> float:
    """How far the log-odds of a refusal's opening words moved, either way, nats."""
    return float(abs(row["log_odds"] - row["base_log_odds"]))


def counted(rows: list[Row], method: str, value: Callable[[Row], float]) -> Interval | None:
    """The share of the items of ARC-Challenge that have it, with Wilson's interval; None where none were asked."""
    own = of(rows, method, "arc")
    if not own:
        return None
    return Interval(*share(int(sum(value(row) for row in own)), len(own)), len(own))


def odds_change(rows: list[Row], method: str) -> tuple[str, Interval]:
    """Mean change of the log-odds of a refusal's opening words, nats; and after which prompts."""
    reading = "refusals" if of(rows, method, "refusals") else "harmless"
    gap_U = np.array([row["log_odds"] - row["base_log_odds"] for row in of(rows, method, reading)])
    return reading, bootstrap(lambda drawn: gap_U[drawn].mean(), len(gap_U))


def steps(rows: list[Row], method: str) -> int:
    """Steps that the run took, the longest where there are several."""
    return int(max(row["unit"] for row in of(rows, method, "training")))


def table(rows: list[Row], names: dict[str, str]) -> str:
    """Every method in numbers."""
    texts = ["document", "chat", real_text(rows)]
    asked = any(row["reading"] == "arc" for row in rows)
    prompts = "harmful" if any(row["reading"] == "refusals" for row in rows) else "harmless"
    head = ["", "steps", "task loss", *(f"drift on {TEXTS[text]}" for text in texts)]
    head += ["ARC: as the base", "ARC: right"] if asked else []
    lines = [
        " | ".join(["", *head, f"log-odds of refusing {prompts} prompts, change", ""]).strip(),
        "|" + "---|" * (len(head) + 1),
    ]
    for method in (method for method in names if method in methods(rows)):
        cells = [names[method], str(steps(rows, method)), f"{mean(rows, method, 'task', 'loss').value:.3f}"]
        cells += [_told(mean(rows, method, text, "kl")) for text in texts]
        cells += [_told(counted(rows, method, value)) for value in (same_answer, right_answer)] if asked else []
        lines.append(f"| {' | '.join([*cells, _told(odds_change(rows, method)[1], '+.2f')])} |")
    base = of(rows, methods(rows)[0], "task")
    loss = sum(row["base_loss"] * row["tokens"] for row in base) / sum(row["tokens"] for row in base)
    items = of(rows, methods(rows)[0], "arc")
    right = [f"{np.mean([row['base_chosen'] == row['right'] for row in items]):.3f}"] if asked else []
    lines.append(f"| the base | 0 | {loss:.3f} | {' | '.join([*['0'] * 3, *(['1', *right] if asked else []), '0'])} |")
    return "\n".join(lines)


def _told(interval: Interval | None, digits: str = ".3f") -> str:
    if interval is None or interval.low is None:
        return ""
    value, low, high, _ = interval
    return f"{value:{digits}} [{low:{digits}}, {high:{digits}}]"


def figure(rows: list[Row], names: dict[str, str]) -> Any:
    """Drift on three texts, answers that stayed the base's, and the odds of a refusal, a line a method."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    from keeptune.plot_style import BLUE, GREEN, GREY, MARKS, ORANGE, PAGE  # noqa: PLC0415

    shown = [method for method in names if method in methods(rows)]
    drawn, (drift, answers, odds) = plt.subplots(
        1, 3, figsize=(PAGE, 0.33 * len(shown) + 1.25), width_ratios=(1.7, 1, 1), sharey=True
    )
    heights = np.arange(len(shown))[::-1]
    texts = ["document", "chat", real_text(rows)]
    for number, (text, colour) in enumerate(zip(texts, (BLUE, ORANGE, GREEN), strict=True)):
        values = [mean(rows, method, text, "kl") for method in shown]
        _points(drift, values, heights + 0.2 * (1 - number), colour, MARKS[number], TEXTS[text])
    drift.set_xscale("log")
    drift.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    drift.xaxis.set_major_formatter("{x:g}")
    drift.xaxis.set_minor_formatter(NullFormatter())
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


def _points(axis: Any, values: Sequence[Interval], heights: Any, colour: str, mark: str, label: str) -> None:
    for value, height in zip(values, heights, strict=False):
        axis.plot([value.low, value.high], [height, height], color=colour, linewidth=1.2)
        axis.plot(value.value, height, mark, color=colour, markersize=4, label=label)
        label = ""
