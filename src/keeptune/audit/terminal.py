"""Audits, continual runs and comparisons as tables on standard output: numbers, never what a model wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.audit.gate import floor_of
from keeptune.audit.reports import columns_of, row_names
from keeptune.audit.verdict import NO_EVIDENCE, SHOWN
from keeptune.audit.where.collector import GROUPS
from keeptune.stats import MIN_DOCUMENTS, format_ends, format_interval

_LEFT: dict[str, Any] = {}
_RIGHT: dict[str, Any] = {"justify": "right"}
_WHOLE: dict[str, Any] = {"justify": "right", "no_wrap": True}
_CLASSES = {"probability": "base's p {}", "position": "{} tokens into a window", "kind": "{}"}
_CLASSES_SHOWN = 2
_SCORES = {
    "texts": "Score on texts: −CE in nats per token (the loss with its sign turned), higher is better",
    "tasks": "Score on tasks: accuracy, higher is better",
}

_stacked = partial(format_interval, separator="\n")
_per_cent = partial(_stacked, scale=100)
_three_digits = partial(format_interval, form=".3f")


def _table(title: str, columns: Mapping[str, dict[str, Any]], rows: Iterable[Sequence[str]]) -> Table:
    """A table of columns with how each is set; an empty row is a line between sections."""
    table = Table(title=title)
    for name, style in columns.items():
        table.add_column(name, **style)
    for row in rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    return table


def _print(*parts: Table | str) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)


def print_report(report: dict[str, Any]) -> None:
    """Every section that the report has."""
    print_drift(report)
    for print_section in (print_tasks, print_harness, print_safety, print_where, print_recovery):
        print_section(report)


def print_drift(report: dict[str, Any]) -> None:
    """The report's numbers and verdicts on every text."""
    rows: list[Sequence[str]] = []
    for name, reading in report["texts"].items():
        about = [name, f"{reading['documents']} documents", f"{reading['tokens']} tokens", ""]
        for first, (key, label) in zip(about, SHOWN.items(), strict=True):
            value, floor = format_interval(reading["measures"][key]), floor_of(report, name, key)
            rows.append((first, label, value, f"{floor:.2g}", reading["verdicts"][key]))
        rows.append(())
    columns = {"text": _LEFT, "measure": _LEFT, "value, 95 % interval": _RIGHT, "noise floor": _RIGHT, "verdict": _LEFT}
    title = f"Drift of {report['tuned']['source']} from {report['base']['source']}, nats per token"
    _print(_table(title, columns, rows))


def print_tasks(report: dict[str, Any]) -> None:
    """The answers in numbers, the headline scoring of each format."""
    if not (tasks := report.get("tasks")):
        return
    numbers = ("base right", "tuned right", "change", "lost, gained", "same answer", "lost beyond chance")
    shares = partial(_per_cent, form=".1f", ends=".0f")
    rows = []
    for name, task in tasks.items():
        for style, ways in task["formats"].items():
            result = ways[task["headline"]]
            row = [f"{name} {style}\n{result['items']} items"]
            row += [shares(result["accuracy_base"]), shares(result["accuracy_tuned"])]
            row += [_per_cent(result["change"], form=".1f")]
            row += [f"{result['right_to_wrong']}, {result['wrong_to_right']}\np {result['mcnemar_p']:.3f}"]
            beyond = result["forgetting"]["beyond_chance"]
            rows.append([*row, shares(result["agreement"]), "–" if beyond is None else f"{beyond * 100:.1f}"])
    title = "Multiple choice, the likeliest option per character; per cent of the items"
    _print(_table(title, {"task": {"no_wrap": True}, **dict.fromkeys(numbers, _RIGHT)}, rows))


def print_harness(report: dict[str, Any]) -> None:
    """The metrics of both models."""
    if not (harness := report.get("lm_eval")):
        return
    numbers = ("items", "base", "tuned", "change, 95 % interval", "lost, gained")
    rows = []
    for task, metrics in harness["tasks"].items():
        for metric, result in metrics.items():
            change, items = result["change"], result["items"]
            ends = NO_EVIDENCE if items < MIN_DOCUMENTS else format_ends(change["low"], change["high"], "+.3f")
            lost = f"{result['right_to_wrong']}, {result['wrong_to_right']}" if "mcnemar_p" in result else ""
            means = [f"{result[role]:.3f}" for role in ("base", "tuned")]
            rows.append([task, metric, str(items), *means, f"{change['value']:+.3f} {ends}", lost])
    title = f"lm-eval, the first {harness['limit']} items at most"
    _print(_table(title, {"task": _LEFT, "metric": _LEFT, **dict.fromkeys(numbers, _RIGHT)}, rows))


def print_safety(report: dict[str, Any]) -> None:
    """Refusals of each set by each detector, and what became of them."""
    if not (safety := report.get("safety")):
        return
    shares = partial(_per_cent, form=".0f")
    rows: list[Sequence[str]] = []
    for name, of_set in safety["sets"].items():
        for place, (detector, result) in enumerate(of_set["detectors"].items()):
            moves = result["transitions"]
            broken = f"\n{result['broken']} of them broken" if result["broken"] else ""
            row = ["" if place else f"{name}\n{of_set['asked']} {of_set['kind']}", detector]
            row += [shares(result["refused_base"]), shares(result["refused_tuned"])]
            row += [f"{moves['refused_answered']}, {moves['answered_refused']}{broken}"]
            rows.append([*row, f"{result['verdict']}\np {result['mcnemar_p']:.3f}"])
        odds = of_set["detectors"]["likelihood"]["log_odds"]
        values = [f"{odds[which]['value']:.2f}" for which in ("base", "tuned")]
        rows.append(["", "log-odds", *values, "change, nats", _stacked(odds["change"], ".2f")])
        agree, bad = of_set["detectors_agree"], of_set["degenerate"]
        rows.append(["", "they agree", shares(agree["base"]), shares(agree["tuned"]), "", ""])
        rows.append(["", "broken answers", shares(bad["base"]["share"]), shares(bad["tuned"]["share"]), "", ""])
        rows.append([])
    columns = {"prompts": {"no_wrap": True, "overflow": "fold"}, "detector": _LEFT, "base": _WHOLE, "tuned": _WHOLE}
    columns |= {"now answered,\nnow refused": _RIGHT, "verdict": _LEFT}
    _print(_table("Refusals, per cent of the prompts with 95 % interval", columns, rows))


def print_where(report: dict[str, Any]) -> None:
    """The classes with most of the drift of each text, and the layers that make it."""
    if not (where := report.get("where")):
        return
    rows: list[Sequence[str]] = []
    for name, text in where["texts"].items():
        for number, group in enumerate(GROUPS):
            classes = sorted(text["classes"][group], key=lambda entry: entry["kl_share"] or 0.0, reverse=True)
            for rank, entry in enumerate(classes[:_CLASSES_SHOWN]):
                first = name if number == rank == 0 else ""
                share = "–" if entry["kl_share"] is None else f"{entry['kl_share']:.0%}"
                kl = _three_digits(entry["kl"]) if entry["enough_evidence"] else NO_EVIDENCE
                rows.append([first, _CLASSES[group].format(entry["class"]), share, f"{entry['token_share']:.0%}", kl])
        rows.append([])
    columns = {"text": _LEFT, "class": _LEFT, "KL": _RIGHT, "tokens": _RIGHT, "nats per token": _RIGHT}
    title = "Where the drift sits: classes of tokens, their shares of KL and tokens"
    _print(_table(title, columns, rows), layers_in_words(where["layers"]))


def layers_in_words(layers: dict[str, Any]) -> str:
    """The layer that helps most when it alone is put back, in a sentence or two."""
    if "unavailable" in layers:
        return f"Layers cannot be compared: {layers['unavailable']}."
    best = max(layers["layers"], key=lambda layer: layer["kl_repaired"]["value"])
    return (
        f"Putting back one layer helps most for layer {best['layer']} (of 0 to {len(layers['layers']) - 1}): KL on "
        f"{layers['text']} falls from {_three_digits(layers['kl'])} to {_three_digits(best['kl_layer_restored'])}, by "
        f"{_three_digits(best['kl_repaired'])} ({layers['tokens']} tokens of {layers['windows']} documents)."
    )


def print_recovery(report: dict[str, Any]) -> None:
    """What the recovery probe found, in a few lines."""
    if not (recovery := report.get("recovery")):
        return
    before, after = (format_interval(recovery["measures"][gap]) for gap in ("gap_before", "gap_after"))
    found = (
        f"Recovery on {recovery['text']}: CE(tuned) − CE(base) on {recovery['documents']} held-out documents is "
        f"{before}; after both were tuned for {recovery['steps']} steps on {recovery['documents_tuned_on']} others, "
        f"{after}."
    )
    share = recovery["recovered_share"]
    shares = [f"Recovered share: {format_interval(share)}."] if share else []
    _print(found, *shares, f"{recovery['verdict'].capitalize()}: {recovery['meaning']}.")


def print_stages(report: dict[str, Any]) -> None:
    """Of a continual run R, what follows from it, and the drift of every checkpoint."""
    for kind, rows in report["R"].items():
        _print(_matrix(report, kind, rows, _SCORES[kind], first_stage=0))
        if kind == "texts":
            drift = "Drift: KL(base‖checkpoint), nats per token"
            _print(_matrix(report, kind, report["drift"]["texts"], drift, first_stage=1))
        _print(_transfers(report["summary"][kind], kind))


def _matrix(report: dict[str, Any], kind: str, rows: list[list[dict[str, Any]]], title: str, first_stage: int) -> Table:
    unit = {"texts": "documents", "tasks": "items"}[kind]
    columns = {"after": _LEFT}
    for column in columns_of(report, kind):
        role = f"stage {column['stage']}" if column["stage"] else "other"
        columns[f"{column['name']}\n{role}\n{column['documents']} {unit}"] = _WHOLE
    named = zip(row_names(report)[first_stage:], rows, strict=True)
    return _table(
        title, columns, ([f"{one}\n{name}", *(_stacked(of, ".3f") for of in row)] for (one, name), row in named)
    )


def _transfers(summary: dict[str, Any], kind: str) -> Table:
    named = [(key.upper(), summary[key]) for key in ("acc", "bwt", "fwt") if summary[key]]
    rows = [(label, format_interval(entry), entry.get("verdict", "")) for label, entry in named]
    if summary["acc"] and not summary["bwt"]:
        rows.append(("BWT, FWT, forgetting", "", "needs two stages"))
    fallen = [
        (f"{entry['column']} forgotten since stage {entry['best_stage']}", entry) for entry in summary["chaudhry"]
    ]
    fallen += [(f"{entry['column']} forgotten since the base", entry) for entry in summary["other"]]
    rows += [(label, format_interval(entry), entry["verdict"]) for label, entry in fallen]
    columns = {"measure": _LEFT, "value, 95 % interval": _WHOLE, "verdict": _LEFT}
    return _table(f"Continual learning on {kind}", columns, rows)


def print_comparison(comparison: dict[str, Any]) -> None:
    """Of audited models side by side the points, and what is sure of each pair."""
    axes, columns = comparison["axes"], {"model": _LEFT}
    for side, axis in axes.items():
        better = "higher" if axis["higher_is_better"] else "lower"
        columns[f"{side}: {axis['title']}\n{better} is better"] = _RIGHT
    points = [
        [point["name"], *(_stacked(point[side]) for side in axes), "yes" if point["front"] else ""]
        for point in comparison["points"]
    ]
    title = f"Models tuned from {comparison['base']['source']}"
    _print(_table(title, {**columns, "Pareto front": _LEFT}, points))
    heads = ("first", "second", *axes)
    pairs = [[pair[head] for head in heads] for pair in comparison["pairs"]]
    _print(_table("Which is surely better", dict.fromkeys(heads, _LEFT), pairs))
