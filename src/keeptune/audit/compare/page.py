"""The page of a comparison: what every model learned against what it forgot, and which differences are sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from keeptune.audit.compare.comparison import Axis, ComparedModel, Comparison, PairVerdict, Place
from keeptune.plot_style import BLUE, ORANGE
from keeptune.report.chart import GREY, Chart, Panel, chart
from keeptune.report.shell import render
from keeptune.report.table import Cell, Column, Table, count, interval, left, text
from keeptune.report.words import counted, interval_text, listed

_SURE = (PairVerdict.FIRST, PairVerdict.SECOND)
# Where a point's number may stand, by preference, as steps to the right and up.
_SPOTS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
# Of the chart's width and height; less apart, two marks or numbers are one blot.
_STEP = (0.03, 0.05)


def compare_page(comparison: Comparison) -> str:
    """One HTML file that needs no network. Nothing in the comparison is trusted: all is escaped."""
    return render(
        "compare.html",
        comparison=comparison,
        sentence=_sentence(comparison),
        picture=_chart(comparison),
        points=points_table(comparison),
        pairs=pairs_table(comparison),
    )


def _sentence(comparison: Comparison) -> str:
    front, pairs = [point.name for point in comparison.points if point.front], comparison.pairs
    learned, forgot = (sum(getattr(pair, side) in _SURE for pair in pairs) for side in ("learned", "forgot"))
    models = f"{front[0]} alone is" if len(front) == 1 else f"{listed(front)} are"
    return (
        f"{models} on the Pareto front. Surely different are {learned} of {counted(len(pairs), 'pair')} in what they "
        f"learned, and {forgot} in what they forgot."
    )


def points_table(comparison: Comparison) -> Table:
    """Every model with its place on both axes."""
    forgot = _unit(comparison.forgot, "lower")
    rows = [
        {
            Column("no.", "number", left=True, page_only=True): count(place),
            left("model"): text(point.name),
            Column("learned", unit=_unit(comparison.learned, comparison.learned.better)): _cell(point.learned),
            Column("forgot", unit=forgot): _cell(point.forgot),
            left("Pareto front", "front"): text("yes" if point.front else "no"),
            Column("source", left=True, page_only=True): text(point.tuned.source),
        }
        for place, point in enumerate(comparison.points, start=1)
    ]
    return Table.of("points", "What every model learned and forgot", rows)


def pairs_table(comparison: Comparison) -> Table:
    """What is sure of each two models."""
    rows = [
        {
            left("first"): text(pair.first),
            left("second"): text(pair.second),
            left("learned"): text(pair.learned.value),
            left("forgot"): text(pair.forgot.value),
        }
        for pair in comparison.pairs
    ]
    return Table.of("pairs", "Which of two models is surely better", rows)


def _unit(axis: Axis, better: str) -> str:
    return f"{axis.title}; {better} is better"


def _cell(place: Place) -> Cell:
    return interval(place.interval.as_dict())


def _chart(comparison: Comparison) -> Chart:
    higher, points = comparison.learned.better == "higher", comparison.points

    def draw(panel: Panel) -> None:
        xs, ys = zip(*front_steps(points, higher_is_better=higher), strict=True)
        panel.axes.step(xs, ys, where="pre" if higher else "post", color=GREY, linestyle=":", label="Pareto front")
        panel.marks([0], [0], ["base: nothing learned, nothing forgotten"], GREY, "D", name="base", size=8)
        for place, (point, spot) in enumerate(zip(points, number_places(points), strict=True), start=1):
            colour, learned, forgot = BLUE if point.front else ORANGE, point.learned, point.forgot
            for one, bar in ((learned, "x"), (forgot, "y")):
                if one.low is not None and one.high is not None:
                    ends, other = [one.low, one.high], (forgot if bar == "x" else learned).value
                    panel.whisker(*((ends, [other] * 2) if bar == "x" else ([other] * 2, ends)), colour, 1.2)
            title = f"{point.name}: learned {_text(learned)}, forgot {_text(forgot)}"
            panel.marks([learned.value], [forgot.value], [title], colour, "o", name=f"{place} {point.name}", size=8,
                        hollow=not point.front)  # fmt: skip
            panel.text(learned.value, forgot.value, str(place), (6 * spot[0], 5 * spot[1]), colour)

    better, arrow = ("right", "better →") if higher else ("left", "← better")
    about = " ".join(f"{one.name}: learned {_text(one.learned)}, forgot {_text(one.forgot)}." for one in points)
    return chart(
        "trade-off",
        "What learning cost",
        f"To the {better} is learned more, further down forgotten less. The bars are 95 % intervals of each model "
        "alone. Filled marks are on the Pareto front; whatever lies above the dotted line is beaten by one.",
        about,
        draw,
        x=f"{comparison.learned.title}, {arrow}",
        y=f"{comparison.forgot.title}, ↓ better",
        height=min(440 + 16 * (len(points) // 3), 640),
    )


def _text(place: Place) -> str:
    return interval_text(place.interval.as_dict())


def front_steps(points: Sequence[ComparedModel], *, higher_is_better: bool) -> list[tuple[float, float]]:
    """A staircase from the top of the chart to its worse side: whatever lies above it is beaten by a model on it."""
    xs, ys = [0.0], [0.0]
    for point in points:
        for ends, place in ((xs, point.learned), (ys, point.forgot)):
            ends += [end for end in (place.value, place.low, place.high) if end is not None]
    steps = sorted((point.learned.value, point.forgot.value) for point in points if point.front)
    if higher_is_better:
        return [(min(xs), steps[0][1]), *steps, (steps[-1][0], max(ys))]
    return [(steps[0][0], max(ys)), *steps, (max(xs), steps[-1][1])]


def number_places(points: Sequence[ComparedModel]) -> list[tuple[int, int]]:
    """Where each point's number stands, in steps right and up, away from all marks and the numbers before it."""
    scaled = []
    for values in ([point.learned.value for point in points], [point.forgot.value for point in points]):
        # To 0 … 1 over all of them and 0, the base.
        low, high = min(0.0, *values), max(0.0, *values)
        scaled.append([(value - low) / ((high - low) or 1.0) for value in values])
    marks = list(zip(*scaled, strict=True))
    taken: Counter[tuple[float, ...]] = Counter(marks)
    chosen = []
    for x, y in marks:
        at = {spot: (x + spot[0] * _STEP[0], y + spot[1] * _STEP[1]) for spot in _SPOTS}
        clashes = {spot: sum(_near(place, other) for other in taken.elements()) for spot, place in at.items()}
        best = min(_SPOTS, key=lambda spot: clashes[spot])
        taken[at[best]] += 1
        chosen.append(best)
    return chosen


def _near(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 0.9 * step for a, b, step in zip(one, two, _STEP, strict=True))
