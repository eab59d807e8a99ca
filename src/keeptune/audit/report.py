"""The report page of a demonstration: one HTML file that needs nothing else, neither network nor server."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from keeptune.audit.charts import charts
from keeptune.audit.meter import DESCRIPTIONS
from keeptune.audit.stats import LEVEL, RESAMPLES

_SHOWN = {
    "kl": "nats per token, 0\u00a0is\u00a0unchanged",
    "l_f_rise": "nats per token, 0\u00a0is\u00a0unchanged",
    "ce_change": "nats per token, above\u00a00\u00a0is\u00a0worse",
    "agreement": "fraction of tokens, 1\u00a0is\u00a0unchanged",
}
# The name of a measure, and what it says to someone who meets it for the first time.
_IN_WORDS = {
    "kl": ("KL", "How far the tuned model’s probabilities for the next token moved from the base’s."),
    "l_f": ("L_f", "How surprised the tuned model is by what the base would have said."),
    "l_f_rise": ("L_f rise", "How much more surprised it is by that than the base itself."),
    "soft_ce": ("soft CE", "How surprised it is by everything that the base could have said."),
    "entropy": ("entropy", "How unsure the base itself is."),
    "ce_change": ("CE change", "How much worse, or below 0 better, it predicts this text as it is written."),
    "agreement": ("agreement", "How often both would say the same next."),
}
_TEXTS = {"self": "text that the base wrote itself", "pydoc": "Python’s language reference"}
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
    environment = Environment(
        loader=PackageLoader("keeptune", "audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        csp_hash=_csp_hash,
        number=_number,
        ratio=_ratio,
        text_name=lambda text: _TEXTS.get(text, text),
        run_name=lambda run: _RUNS.get(run, run),
    )
    return environment.get_template("template.html").render(
        sentence=content["sentence"],
        summary=summary,
        charts=charts(content["trajectories"], summary["task_loss"]["base"], summary["steps"]["plain"]),
        trajectories=content["trajectories"],
        readings=content["readings"],
        readings_csv=_csv(content["readings"]),
        continuations=content["continuations"],
        method=content["method"],
        shown=[(name, _IN_WORDS[name][0], unit) for name, unit in _SHOWN.items()],
        definitions=[(name, *_IN_WORDS[name], text) for name, text in DESCRIPTIONS.items()],
        level=f"{LEVEL * 100:.0f}\u202f%",
        resamples=RESAMPLES,
        plotly_js=Markup(get_plotlyjs()),  # noqa: S704 — plotly's own code, from the installed package
    )


def _csp_hash(script: str) -> str:
    """What a Content-Security-Policy calls this script: the browser then runs it, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _csv(readings: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table with all digits, a column for each end of an interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = [name + part for name in _SHOWN for part in ("", "_low", "_high")]
    writer.writerow(["text", "run", *columns, "documents", "tokens"])
    for text, runs in readings.items():
        for run, reading in runs.items():
            intervals = [reading["measures"][name] for name in _SHOWN]
            numbers = [interval[part] for interval in intervals for part in ("value", "low", "high")]
            writer.writerow([text, run, *numbers, reading["documents"], reading["tokens"]])
    return file.getvalue()
