"""Tasks of the lm-eval harness: the metrics of both models."""

from __future__ import annotations

from typing import Any

from keeptune.audit.page.table import Cell, Column, Table, count, interval, number, p_value, text


def harness_table(harness: dict[str, Any]) -> Table:
    """Every metric of every task, with its change and, where items are right or wrong, what was lost and gained."""
    columns = [
        Column(name="task", csv="task", left=True),
        Column(name="metric", csv="metric", left=True),
        Column(name="base", csv="base"),
        Column(name="tuned", csv="tuned"),
        Column(name="change", csv="change", unit="tuned − base"),
        Column(name="lost", csv="right_to_wrong", unit="items right→wrong"),
        Column(name="gained", csv="wrong_to_right", unit="items wrong→right"),
        Column(name="p", csv="mcnemar_p", unit="McNemar, exact"),
        Column(name="items", csv="items"),
    ]
    rows = [
        _row(task, metric, result) for task, metrics in harness["tasks"].items() for metric, result in metrics.items()
    ]
    return Table(name="harness", caption="Metrics of lm-eval by task", columns=columns, rows=rows)


def _row(task: str, metric: str, result: dict[str, Any]) -> list[Cell]:
    paired = [number(None)] * 3
    if "mcnemar_p" in result:
        paired = [count(result["right_to_wrong"]), count(result["wrong_to_right"]), p_value(result["mcnemar_p"])]
    better = {True: ", higher is better", False: ", lower is better"}.get(result["higher_is_better"], "")
    return [
        text(task),
        text(metric, more=better),
        number(result["base"]),
        number(result["tuned"]),
        interval(result["change"], "+.4f", n=result["items"]),
        *paired,
        count(result["items"]),
    ]
