"""The report page of a demonstration: one base tuned twice, plainly and with replay.

Its charts: task loss and drift as training goes on, and one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from keeptune.audit.meter import DESCRIPTIONS
from keeptune.audit.page.chart import BLUE, GREY, ORANGE, Chart, chart_json, figure
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Column, Table, count, interval, left, number, text
from keeptune.audit.page.words import IN_WORDS, TEXTS, UNITS
from keeptune.stats import LEVEL, RESAMPLES

Rows = Sequence[dict[str, Any]]

_RUNS = {"plain": "plain", "replay": "replay", "replay_matched": "replay, matched steps"}
_STYLES: dict[str, dict[str, Any]] = {
    "plain": {"line": {"color": ORANGE, "width": 2.5}, "marker": {"symbol": "circle", "size": 7}},
    "replay": {"line": {"color": BLUE, "width": 2.5}, "marker": {"symbol": "square", "size": 7}},
    "base": {"line": {"color": GREY, "width": 2, "dash": "8px,5px"}},
}
_END_SIZE = 13
_STEP = "training step"
_LOSS = "task loss, nats per token"
_DRIFT = "drift, nats per token"


def demo_page(content: dict[str, Any]) -> str:
    """The page of a demonstration that tuned one base twice, plainly and with replay.

    Args:
        content: `sentence`, what to take away; `summary`, the model, data, drift ratios (replay ÷ plain, with
            intervals), task losses (nats per token), steps and provenance; `trajectories`, the rows of `runs.jsonl`
            by run; `readings`, `Drift.summary()` by text and run; `continuations`, each a prompt with what the models
            wrote; `method`, sentences that say what was run. Nothing in it is trusted: all of it is escaped.

    Returns:
        The HTML, about 5 MB, nearly all of it plotly.js.

    Raises:
        KeyError: a part of `content` is missing.
        jinja2.UndefinedError: a part of `content["summary"]` is missing.
    """
    summary, runs = content["summary"], content["trajectories"]
    base_loss, plain_steps = summary["task_loss"]["base"], summary["steps"]["plain"]
    return render(
        "demo.html",
        sentence=content["sentence"],
        summary=summary,
        charts=[
            _loss_chart(runs, base_loss, plain_steps),
            _drift_chart(runs, plain_steps),
            _trade_chart(runs, base_loss),
        ],
        trajectories=_trajectories(runs),
        readings=_readings(content["readings"]),
        continuations=content["continuations"],
        method=content["method"],
        definitions=[(name, *IN_WORDS[name], description) for name, description in DESCRIPTIONS.items()],
        level=f"{LEVEL * 100:.0f}\u202f%",
        resamples=RESAMPLES,
        text_names=TEXTS,
    )


def _trajectories(runs: dict[str, Rows]) -> Table:
    rows = [
        {
            left("run"): _run(run),
            Column("step"): count(row["step"]),
            Column("held-out task loss", "L_ft", "nats per token"): number(row["L_ft"]),
            Column("drift, KL(base‖tuned)", "KL", "nats per token"): number(row["KL"]),
            Column("seconds of training", "seconds"): number(row["seconds"], ".1f"),
        }
        for run, of_run in runs.items()
        for row in of_run
    ]
    return Table.of("trajectories", "Readings during training", rows)


def _readings(texts: dict[str, dict[str, dict[str, Any]]]) -> Table:
    measures = {key: Column(IN_WORDS[key][0], key, unit, about=f"measure-{key}") for key, unit in UNITS.items()}
    rows = [
        {
            left("text"): text(TEXTS.get(name, name), name),
            left("run"): _run(run),
            **{column: interval(reading["measures"][key]) for key, column in measures.items()},
            Column("documents"): count(reading["documents"]),
            Column("tokens"): count(reading["tokens"]),
        }
        for name, runs in texts.items()
        for run, reading in runs.items()
    ]
    return Table.of("readings", "Drift by text and run", rows)


def _run(run: str) -> Any:
    return text(_RUNS.get(run, run), run, mark="plain" if run == "plain" else "replay")


def _loss_chart(trajectories: dict[str, Rows], base_loss: float, plain_steps: int) -> Chart:
    last_step = max(row["step"] for rows in trajectories.values() for row in rows)
    base = go.Scatter(x=[0, last_step], y=[base_loss, base_loss], name="base", mode="lines", **_STYLES["base"])
    base.hovertemplate = "%{y:.3f}"
    traces = [base, *_lines(trajectories, "step", "L_ft")]
    return Chart(
        name="task-loss",
        title="What it learned",
        sentence="How badly the model predicts task text that it has not trained on: lower is better.",
        description=f"Held-out task loss in nats per token against training step. The base stays at {base_loss:.3f}. "
        + _ends(trajectories, "L_ft"),
        figure=chart_json(_mark_end_of_plain(figure(traces, _STEP, _LOSS), trajectories, plain_steps)),
    )


def _drift_chart(trajectories: dict[str, Rows], plain_steps: int) -> Chart:
    drawn = figure(_lines(trajectories, "step", "KL"), _STEP, _DRIFT)
    drawn.update_yaxes(rangemode="tozero")
    return Chart(
        name="drift",
        title="What it forgot",
        sentence="How far its predictions moved from the base’s on held-out text that the base wrote itself: "
        "0 is not at all, lower is better.",
        description="Drift, KL(base‖tuned) in nats per token on held-out self-generated text, against training step. "
        + _ends(trajectories, "KL"),
        figure=chart_json(_mark_end_of_plain(drawn, trajectories, plain_steps)),
    )


def _trade_chart(trajectories: dict[str, Rows], base_loss: float) -> Chart:
    traces = _lines(trajectories, "L_ft", "KL")
    for trace in traces:
        sizes = [_STYLES[trace.name]["marker"]["size"]] * len(trace.x)
        trace.marker.update(size=[*sizes[:-1], _END_SIZE], opacity=1, line_width=0)
    start = go.Scatter(x=[base_loss], y=[0], name="base", mode="markers", hovertemplate="loss %{x:.3f}, drift 0")
    start.marker = {"color": _STYLES["base"]["line"]["color"], "symbol": "diamond", "size": _END_SIZE}
    start.cliponaxis = False
    drawn = figure([*traces, start], f"held-out {_LOSS}", _DRIFT)
    drawn.update_layout(hovermode="closest")
    drawn.update_yaxes(rangemode="tozero")
    plain_loss = _points(trajectories["plain"], "L_ft", "KL")[0][-1]
    return Chart(
        name="trade-off",
        title="What learning cost",
        sentence="Each run walks from the base, at the right, to its end, the large mark; at the same task loss, "
        "such as along the dotted line, the lower run has forgotten less.",
        description="Drift against held-out task loss, both in nats per token; each run is a path from the base’s "
        f"point, at loss {base_loss:.3f} and drift 0. {_ends(trajectories, 'KL')} "
        f"Plain ends at loss {plain_loss:.3f}.",
        figure=chart_json(_mark(drawn, plain_loss, "equal task loss")),
    )


def _points(rows: Rows, x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns of the rows that have both: a run without evaluation data has no task loss at first."""
    pairs = [(row[x], row[y]) for row in rows if row[x] is not None and row[y] is not None]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _lines(trajectories: dict[str, Rows], x: str, y: str) -> list[Any]:
    traces = []
    for name in ("plain", "replay"):
        xs, ys = _points(trajectories[name], x, y)
        trace = go.Scatter(x=xs, y=ys, name=name, mode="lines+markers", **_STYLES[name])
        trace.hovertemplate = "%{y:.3f}" if x == "step" else "loss %{x:.3f}, drift %{y:.3f}"
        traces.append(trace)
    return traces


def _ends(trajectories: dict[str, Rows], column: str) -> str:
    sentences = []
    for name in ("plain", "replay"):
        steps, values = _points(trajectories[name], "step", column)
        sentences.append(f"{name} goes from {values[0]:.3f} to {values[-1]:.3f} at step {steps[-1]}")
    return "; ".join(sentences).capitalize() + "."


def _mark_end_of_plain(drawn: Any, trajectories: dict[str, Rows], plain_steps: int) -> Any:
    """Where the other run goes on, mark the step where the plain one ended."""
    longer = max(row["step"] for row in trajectories["replay"]) > plain_steps
    return _mark(drawn, plain_steps, "matched steps") if longer else drawn


def _mark(drawn: Any, x: float, text: str) -> Any:
    """A vertical line through the chart, its name written along it: beside it, a phone would have no room."""
    line = {"width": 1, "dash": "dot", "color": _STYLES["base"]["line"]["color"]}
    drawn.add_shape(type="line", xref="x", yref="paper", x0=x, x1=x, y0=0, y1=1, layer="below", line=line)
    place = {"xref": "x", "yref": "paper", "x": x, "y": 0.55, "xanchor": "right", "xshift": -1, "textangle": -90}
    return drawn.add_annotation(**place, text=text, showarrow=False, font={"size": 12})
