"""The page of a comparison: what every model learned against what it forgot, and which differences are sure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import plotly.graph_objects as go

from keeptune.audit.page.chart import BLUE, GREY, ORANGE, Chart, chart_json, error_bar, figure, label
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Column, Table, count, interval, left, text
from keeptune.audit.page.words import interval_text
from keeptune.audit.verdict import FIRST, SECOND

_SIDES = ("learned", "forgot")
_ENDS = ("value", "low", "high")
_MARK_SIZE = 11
# Where a point's number may stand, by preference, as steps to the right and up.
_PLACES = {
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
}
# Of the chart's width and height; less apart, two marks or numbers are one blot.
_STEP = (0.03, 0.05)


def compare_page(comparison: dict[str, Any]) -> str:
    """The page of a comparison.

    Args:
        comparison: as `keeptune.audit.compare.compare` gives it. Nothing in it is trusted.

    Returns:
        The HTML, about 5 MB.

    Raises:
        KeyError: a part of the comparison is missing.
    """
    return render(
        "compare.html",
        comparison=comparison,
        sentence=_sentence(comparison),
        picture=_chart(comparison),
        points=_points(comparison),
        pairs=_pairs(comparison),
    )


def _sentence(comparison: dict[str, Any]) -> str:
    front = [point["name"] for point in comparison["points"] if point["front"]]
    pairs = comparison["pairs"]
    sure = {side: sum(pair[side] in (FIRST, SECOND) for pair in pairs) for side in _SIDES}
    models = f"{front[0]} alone is" if len(front) == 1 else f"{', '.join(front[:-1])} and {front[-1]} are"
    return (
        f"{models} on the Pareto front. Surely different are {sure['learned']} of {len(pairs)} "
        f"pair{'s' * (len(pairs) > 1)} in what they learned, and {sure['forgot']} in what they forgot."
    )


def _points(comparison: dict[str, Any]) -> Table:
    units = {
        side: f"{axis['title']}; {'higher' if axis['higher_is_better'] else 'lower'} is better"
        for side, axis in comparison["axes"].items()
    }
    rows = [
        {
            left("no.", "number"): count(place),
            left("model"): text(point["name"]),
            **{Column(side, unit=units[side]): interval(point[side]) for side in _SIDES},
            left("Pareto front", "front"): text("yes" if point["front"] else "no"),
            left("source"): text(point["tuned"]["source"]),
        }
        for place, point in enumerate(comparison["points"], start=1)
    ]
    return Table.of("points", "What every model learned and forgot", rows)


def _pairs(comparison: dict[str, Any]) -> Table:
    rows = [{left(key): text(pair[key]) for key in ("first", "second", *_SIDES)} for pair in comparison["pairs"]]
    return Table.of("pairs", "Which of two models is surely better", rows)


def _chart(comparison: dict[str, Any]) -> Chart:
    learned, forgot = (comparison["axes"][side] for side in _SIDES)
    better, arrow = ("right", "better →") if learned["higher_is_better"] else ("left", "← better")
    base = go.Scatter(x=[0], y=[0], name="base", mode="markers", hovertemplate="nothing learned, nothing forgotten")
    base.update(marker={"color": GREY, "symbol": "diamond", "size": _MARK_SIZE}, cliponaxis=False)
    front = _front(comparison["points"], higher_is_better=learned["higher_is_better"])
    titles = f"{label(learned['title'], 60)}, {arrow}", f"{label(forgot['title'], 60)}, ↓ better"
    drawn = figure([front, base, *_marks(comparison["points"])], *titles)
    drawn.update_layout(hovermode="closest")
    return Chart(
        name="trade-off",
        title="What learning cost",
        sentence=f"To the {better} is learned more, further down forgotten less. The bars are 95 % intervals of each "
        "model alone. Filled marks are on the Pareto front; whatever lies above the dotted line is beaten by one.",
        description=" ".join(
            f"{point['name']}: learned {interval_text(point['learned'])}, forgot {interval_text(point['forgot'])}."
            for point in comparison["points"]
        ),
        figure=chart_json(drawn),
        height=460,
    )


def _marks(points: list[dict[str, Any]]) -> list[Any]:
    """One trace a model, so that the legend names its number."""
    marks = []
    for place, (point, position) in enumerate(zip(points, number_places(points), strict=True), start=1):
        colour = BLUE if point["front"] else ORANGE
        x, y = point["learned"], point["forgot"]
        mark = go.Scatter(x=[x["value"]], y=[y["value"]], mode="markers+text", name=f"{place} {label(point['name'])}")
        mark.update(text=[f"<b>{place}</b>"], textposition=position, cliponaxis=False)
        mark.marker = {"color": colour, "size": _MARK_SIZE, "symbol": "circle" if point["front"] else "circle-open"}
        mark.marker.line = {"width": 2, "color": colour}
        mark.error_x, mark.error_y = _bar(x, colour), _bar(y, colour)
        mark.hovertemplate = f"learned {interval_text(x)}<br>forgot {interval_text(y)}"
        marks.append(mark)
    return marks


def _bar(place: dict[str, Any], colour: str) -> dict[str, Any]:
    return {"visible": False} if place["low"] is None else error_bar([place], color=colour, thickness=1.2, width=4)


def _front(points: list[dict[str, Any]], *, higher_is_better: bool) -> Any:
    """A staircase from the top of the chart to its worse side: whatever lies above it is beaten by a model on it."""
    # The ends of the axes, on which all intervals and the base fit.
    xs, ys = ([0.0, *(of[side][end] for of in points for end in _ENDS if of[side][end] is not None)] for side in _SIDES)
    steps = sorted((point["learned"]["value"], point["forgot"]["value"]) for point in points if point["front"])
    if higher_is_better:
        steps = [(min(xs), steps[0][1]), *steps, (steps[-1][0], max(ys))]
    else:
        steps = [(steps[0][0], max(ys)), *steps, (max(xs), steps[-1][1])]
    line = go.Scatter(x=[x for x, _ in steps], y=[y for _, y in steps], mode="lines", name="Pareto front")
    line.line = {"color": GREY, "width": 2, "dash": "dot", "shape": "vh" if higher_is_better else "hv"}
    return line.update(hoverinfo="skip")


def number_places(points: list[dict[str, Any]]) -> list[str]:
    """Where each point's number stands (plotly's `textposition`), away from all marks and the numbers before it."""
    scaled = []
    for side in _SIDES:
        # To 0 … 1 over all of them and 0, the base.
        values = [point[side]["value"] for point in points]
        low, high = min(0.0, *values), max(0.0, *values)
        scaled.append([(value - low) / ((high - low) or 1.0) for value in values])
    marks = list(zip(*scaled, strict=True))
    taken: Counter[tuple[float, ...]] = Counter(marks)
    chosen = []
    for x, y in marks:
        spots = {name: (x + right * _STEP[0], y + up * _STEP[1]) for name, (right, up) in _PLACES.items()}
        clashes = {name: sum(_near(spot, other) for other in taken.elements()) for name, spot in spots.items()}
        best = min(spots, key=lambda name: clashes[name])
        taken[spots[best]] += 1
        chosen.append(best)
    return chosen


def _near(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 0.9 * step for a, b, step in zip(one, two, _STEP, strict=True))
