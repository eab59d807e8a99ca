"""The report page of a demonstration: one base tuned twice, plainly and with replay."""

from __future__ import annotations

from typing import Any

from keeptune.audit.meter import DESCRIPTIONS
from keeptune.audit.page.demo_charts import charts
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Column, Table, count, interval, number, text
from keeptune.audit.page.words import IN_WORDS, TEXTS, UNITS
from keeptune.stats import LEVEL, RESAMPLES

_RUNS = {"plain": "plain", "replay": "replay", "replay_matched": "replay, matched steps"}


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
    summary = content["summary"]
    return render(
        "demo.html",
        sentence=content["sentence"],
        summary=summary,
        charts=charts(content["trajectories"], summary["task_loss"]["base"], summary["steps"]["plain"]),
        trajectories=_trajectories(content["trajectories"]),
        readings=_readings(content["readings"]),
        continuations=content["continuations"],
        method=content["method"],
        definitions=[(name, *IN_WORDS[name], description) for name, description in DESCRIPTIONS.items()],
        level=f"{LEVEL * 100:.0f}\u202f%",
        resamples=RESAMPLES,
        text_names=TEXTS,
    )


def _trajectories(runs: dict[str, list[dict[str, Any]]]) -> Table:
    columns = [
        Column(name="run", csv="run", left=True),
        Column(name="step", csv="step"),
        Column(name="held-out task loss", csv="L_ft", unit="nats per token"),
        Column(name="drift, KL(base‖tuned)", csv="KL", unit="nats per token"),
        Column(name="seconds of training", csv="seconds"),
    ]
    rows = [
        [_run(run), count(row["step"]), number(row["L_ft"]), number(row["KL"]), number(row["seconds"], ".1f")]
        for run, of_run in runs.items()
        for row in of_run
    ]
    return Table(name="trajectories", caption="Readings during training", columns=columns, rows=rows)


def _readings(texts: dict[str, dict[str, dict[str, Any]]]) -> Table:
    columns = [
        Column(name="text", csv="text", left=True),
        Column(name="run", csv="run", left=True),
        *[Column(name=IN_WORDS[key][0], csv=key, unit=unit, about=f"measure-{key}") for key, unit in UNITS.items()],
        Column(name="documents", csv="documents"),
        Column(name="tokens", csv="tokens"),
    ]
    rows = [
        [
            text(TEXTS.get(name, name), name),
            _run(run),
            *[interval(reading["measures"][key]) for key in UNITS],
            count(reading["documents"]),
            count(reading["tokens"]),
        ]
        for name, runs in texts.items()
        for run, reading in runs.items()
    ]
    return Table(name="readings", caption="Drift by text and run", columns=columns, rows=rows)


def _run(run: str) -> Any:
    return text(_RUNS.get(run, run), run, mark="plain" if run == "plain" else "replay")
