"""What a model still answers right: the table of tasks, and the change of accuracy as a chart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keeptune.audit.page.chart import Chart, Point, chart_json, forest, in_words
from keeptune.audit.page.table import Cell, Column, Table, count, interval, number, p_value, text
from keeptune.audit.page.words import FORMATS, counted

_SHARE, _CHANGE = ".1%", "+.1%"
_COLUMNS = [
    Column(name="task", csv="task", left=True),
    Column(name="asked", csv="format", left=True),
    Column(name="base", csv="accuracy_base", unit="accuracy"),
    Column(name="tuned", csv="accuracy_tuned", unit="accuracy"),
    Column(name="change", csv="change", unit="tuned − base"),
    Column(name="lost", csv="right_to_wrong", unit="items right→wrong"),
    Column(name="gained", csv="wrong_to_right", unit="items wrong→right"),
    Column(name="p", csv="mcnemar_p", unit="McNemar, exact"),
    Column(name="same answer", csv="agreement", unit="right or wrong"),
    Column(name="forgetting", csv="forgetting_beyond_chance", unit="lost beyond chance"),
    Column(name="items", csv="items"),
]


def tasks_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["tasks"]`: `table`, `chart`, and other scorings."""
    tasks = report["tasks"]
    rows = [_row(name, style, result) for name, style, way, result in _results(tasks) if way == tasks[name]["headline"]]
    other_rows = [
        [*_row(name, style, result), text(way)]
        for name, style, way, result in _results(tasks)
        if way != tasks[name]["headline"]
    ]
    others = [*_COLUMNS, Column(name="scored by", csv="scoring", left=True)]
    return {
        "table": Table(name="tasks", caption="Answers by task", columns=_COLUMNS, rows=rows),
        "others": Table(name="tasks-others", caption="Answers scored otherwise", columns=others, rows=other_rows),
        "chart": _chart(tasks),
    }


def headline_results(tasks: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Task, format and result of every headline scoring."""
    for name, task in tasks.items():
        for style, ways in task["formats"].items():
            yield name, style, ways[task["headline"]]


def _results(tasks: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name, task in tasks.items():
        for style, ways in task["formats"].items():
            for way, result in ways.items():
                if way != "left_out":
                    yield name, style, way, result


def _row(name: str, style: str, result: dict[str, Any]) -> list[Cell]:
    items = result["items"]
    return [
        text(name),
        text(style),
        interval(result["accuracy_base"], _SHARE, n=items),
        interval(result["accuracy_tuned"], _SHARE, n=items),
        interval(result["change"], _CHANGE, n=items),
        count(result["right_to_wrong"]),
        count(result["wrong_to_right"]),
        p_value(result["mcnemar_p"]),
        interval(result["agreement"], _SHARE, n=items),
        number(result["forgetting"]["beyond_chance"], _SHARE),
        count(items),
    ]


def _chart(tasks: dict[str, Any]) -> Chart:
    points = [
        Point(name, FORMATS.get(style, style), *change_of(result), counted(result["items"], "item"))
        for name, style, result in headline_results(tasks)
    ]
    drawn = forest(points, "change of accuracy, per cent of the items", form=_CHANGE)
    return Chart(
        name="tasks-change",
        title="How accuracy changed",
        sentence="Left of 0 the tuned model answers fewer items right than its base, right of 0 more; a line that "
        "crosses 0 is a change that chance could have made.",
        description=f"Change of accuracy by task and format. {in_words(points, _CHANGE)}",
        figure=chart_json(drawn),
        height=drawn.layout.height,
    )


def change_of(result: dict[str, Any]) -> tuple[float, float, float]:
    """Value, low and high of a result's change."""
    change = result["change"]
    return change["value"], change["low"], change["high"]
