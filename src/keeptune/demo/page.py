"""The report page of a demonstration: one base tuned twice, plainly and with replay.

Its charts: task loss and drift as training goes on, and one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from keeptune.plot_style import BLUE, ORANGE
from keeptune.report.chart import GREY, Chart, Panel, chart
from keeptune.report.measures import measure_of
from keeptune.report.shell import render
from keeptune.report.table import Cell, Column, Table, count, interval, left, number, text
from keeptune.report.view import definitions
from keeptune.stats import LEVEL, RESAMPLES, IntervalRow
from keeptune.system import Provenance
from keeptune.train.readings import Lambda, Reading

_Trajectories = Mapping[str, Sequence[Reading]]
_Column = Literal["step", "L_ft", "KL"]

_RUNS = {"plain": "plain", "replay": "replay", "replay_matched": "replay, matched steps"}
_LOOKS = {"plain": (ORANGE, "o"), "replay": (BLUE, "s")}
MEASURES = ("kl", "ce_change", "l_f_rise", "agreement")
TEXTS = {"self": "text that the base wrote itself", "pydoc": "Python’s language reference"}
_END_SIZE = 10.0
_STEP = "training step"
_LOSS = "task loss, nats per token"
_DRIFT = "drift, nats per token"


class Summary(Lambda, Provenance):
    """What summary.json holds; losses and drift in nats per token."""

    model: str
    data: str
    drift_ratio_matched_steps: dict[str, IntervalRow]
    """Replay ÷ plain, by text."""
    drift_ratio_equal_loss: dict[str, IntervalRow]
    equal_loss_reached: bool
    task_loss: dict[str, float]
    """Of the base and of each tuned model."""
    steps: dict[str, int]
    drift: dict[str, dict[str, IntervalRow]]
    """By text and model."""
    minutes: float
    minutes_by_stage: dict[str, float]


class TextReading(TypedDict):
    """The drift of one model on one text."""

    documents: int
    tokens: int
    measures: dict[str, IntervalRow]
    """Those of `MEASURES`."""


class DemoContent(TypedDict):
    """What the page shows."""

    sentence: str
    """What to take away."""
    summary: Summary
    trajectories: _Trajectories
    """The rows of `runs.jsonl` by run."""
    readings: dict[str, dict[str, TextReading]]
    """By text and run."""
    continuations: list[dict[str, str]]
    """Each a prompt with what the models wrote."""
    method: list[str]
    """Sentences that say what was run."""


def demo_page(content: DemoContent) -> str:
    """The HTML of a demonstration. Nothing in `content` is trusted: all of it is escaped."""
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
        definitions=definitions(MEASURES),
        level=f"{LEVEL * 100:.0f}\u202f%",
        resamples=RESAMPLES,
        text_names=TEXTS,
    )


def _trajectories(runs: _Trajectories) -> Table:
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


def _readings(texts: dict[str, dict[str, TextReading]]) -> Table:
    measures = {
        key: Column(line.label, key, line.unit, about=f"measure-{key}")
        for key, line in ((key, measure_of(key)) for key in MEASURES)
    }
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


def _run(run: str) -> Cell:
    return text(_RUNS.get(run, run), run, mark="plain" if run == "plain" else "replay")


def _loss_chart(trajectories: _Trajectories, base_loss: float, plain_steps: int) -> Chart:
    def draw(panel: Panel) -> None:
        last_step = max(row["step"] for rows in trajectories.values() for row in rows)
        panel.line([0, last_step], [base_loss, base_loss], GREY, dash="--", name="base")
        _paths(panel, trajectories, "step", "L_ft")
        _mark_end_of_plain(panel, trajectories, plain_steps)

    return chart(
        "task-loss",
        "What it learned",
        "How badly the model predicts task text that it has not trained on: lower is better.",
        f"Held-out task loss in nats per token against training step. The base stays at {base_loss:.3f}. "
        + _ends(trajectories, "L_ft"),
        draw,
        x=_STEP,
        y=_LOSS,
    )


def _drift_chart(trajectories: _Trajectories, plain_steps: int) -> Chart:
    def draw(panel: Panel) -> None:
        _paths(panel, trajectories, "step", "KL")
        panel.axes.set_ylim(bottom=0)
        _mark_end_of_plain(panel, trajectories, plain_steps)

    return chart(
        "drift",
        "How far it drifted",
        "How far its predictions moved from the base’s on held-out text that the base wrote itself: 0 is not at all, "
        "lower is better.",
        "Drift, KL(base‖tuned) in nats per token on held-out self-generated text, against training step. "
        + _ends(trajectories, "KL"),
        draw,
        x=_STEP,
        y=_DRIFT,
    )


def _trade_chart(trajectories: _Trajectories, base_loss: float) -> Chart:
    plain_loss = _points(trajectories["plain"], "L_ft", "KL")[0][-1]

    def draw(panel: Panel) -> None:
        _paths(panel, trajectories, "L_ft", "KL", large_end=True)
        panel.marks([base_loss], [0], [f"base: loss {base_loss:.3f}, drift 0"], GREY, "D", name="base", size=_END_SIZE)
        panel.axes.set_ylim(bottom=0)
        panel.rule(x=plain_loss, name="equal task loss", dash=":")

    return chart(
        "trade-off",
        "What learning cost",
        "Each run walks from the base, at the right, to its end, the large mark. At the same task loss, such as along "
        "the dotted line, the lower run has drifted less.",
        "Drift against held-out task loss, both in nats per token; each run is a path from the base’s point, at loss "
        f"{base_loss:.3f} and drift 0. {_ends(trajectories, 'KL')} Plain ends at loss {plain_loss:.3f}.",
        draw,
        x=f"held-out {_LOSS}",
        y=_DRIFT,
    )


def _points(rows: Sequence[Reading], x: _Column, y: _Column) -> tuple[list[float], list[float]]:
    """Two columns of the rows that have both: a run without evaluation data has no task loss at first."""
    pairs = [(a, b) for a, b in ((row[x], row[y]) for row in rows) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _paths(panel: Panel, trajectories: _Trajectories, x: _Column, y: _Column, *, large_end: bool = False) -> None:
    for name, (colour, mark) in _LOOKS.items():
        xs, ys = _points(trajectories[name], x, y)
        said = "step {:.0f}: {:.3f}" if x == "step" else "loss {:.3f}, drift {:.3f}"
        titles = [f"{name}, {said.format(a, b)}" for a, b in zip(xs, ys, strict=True)]
        sizes = [6.0] * (len(xs) - 1) + [_END_SIZE if large_end else 6.0]
        panel.path(xs, ys, titles, colour, mark, name, sizes=sizes)


def _ends(trajectories: _Trajectories, column: _Column) -> str:
    sentences = []
    for name in _LOOKS:
        steps, values = _points(trajectories[name], "step", column)
        sentences.append(f"{name} goes from {values[0]:.3f} to {values[-1]:.3f} at step {steps[-1]}")
    return "; ".join(sentences).capitalize() + "."


def _mark_end_of_plain(panel: Panel, trajectories: _Trajectories, plain_steps: int) -> None:
    """Where the other run goes on, mark the step where the plain one ended."""
    if max(row["step"] for row in trajectories["replay"]) > plain_steps:
        panel.rule(x=plain_steps, name="matched steps", dash=":")
