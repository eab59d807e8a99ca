"""The view of where the drift sits: bars of classes, lines of layers, passages with their tokens shaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from keeptune.audit.where.layers import LayerProfile
from keeptune.audit.where.passages import Continuation, Passage
from keeptune.plot_style import BLUE, GREEN, ORANGE
from keeptune.report.chart import GREY, Chart, Panel, chart
from keeptune.report.codec import from_json
from keeptune.report.document import SectionRecord
from keeptune.report.finding import Finding, select
from keeptune.report.forest import bar_chart
from keeptune.report.measures import Verdict
from keeptune.report.table import Cell, Column, Table, count, interval, left, number, text
from keeptune.report.view import View, value_cell
from keeptune.report.words import counted, interval_text, shown_number
from keeptune.stats import MIN_DOCUMENTS

GROUPS = {"probability": "the base’s probability", "position": "place in the window", "kind": "kind of token"}
FULL_SHADE = 4.0  # nats: tokens with more are shaded as strongly as these
UNDERLINED = 1.0  # nats from which a token is underlined too, for those who cannot tell the shades
_CLASSES_SHOWN = 2
_SHARES = ("class_kl_share", "class_token_share")
# What is drawn of the layers: measure, name in the legend, color, mark.
_MOVED = (("layer_moved", "output moved", GREEN, "D"),)
_KEPT = (
    ("layer_patched", "its output is the base’s", BLUE, "s"),
    ("layer_restored", "the layer is the base’s", ORANGE, "o"),
)
Rows = dict[tuple[str, str, str], dict[str, Finding]]
"""The findings of a class by its text, grouping and name, and by measure."""


@dataclass(frozen=True, kw_only=True)
class WhereDetails:
    """What is to be read beside the numbers."""

    passages: list[Passage]
    """The worst of all texts."""
    continuations: list[Continuation]
    layers: LayerProfile
    """Without the layers' numbers, which are findings."""


def where_view(record: SectionRecord, findings: Sequence[Finding]) -> View:
    """What there is to see of the section `where`."""
    details, classes = from_json(WhereDetails, record.details), _by_class(findings)
    charts = [_classes_chart(place, name, classes) for place, name in enumerate(_texts(classes), 1)]
    folded = [("The numbers of the classes", _classes_table(classes))] if classes else []
    layers = select(findings, measure="layer_moved")
    said = layers_in_words(findings, details.layers)
    return View(
        name=record.name,
        title=record.title,
        prose="Tokens by how likely the base held them, by their place in the window and by their kind: which part of "
        "the tokens they are, and which part of the drift."
        if classes
        else "",
        charts=charts,
        folded=folded,
        template="audit/where.html",
        content={
            "layers": said,
            "layer_charts": _layer_charts(findings) if layers else [],
            "layer_table": _layers_table(findings) if layers else None,
            "passages": [_passage(passage) for passage in details.passages],
            "tokens": _tokens_table(details.passages),
            "legend": [(nats, _shade(nats)) for nats in (0.0, 0.5, 1.0, 2.0, FULL_SHADE)],
            "underlined": UNDERLINED,
            "continuations": details.continuations,
        },
        terminal=[_top_classes(classes)] if classes else [],
        lines=[said],
    )


def _texts(classes: Rows) -> list[str]:
    return list(dict.fromkeys(name for name, _, _ in classes))


def _by_class(findings: Sequence[Finding]) -> Rows:
    rows: Rows = {}
    for finding in findings:
        group, colon, name = finding.part.partition(": ")
        if colon:
            rows.setdefault((finding.subject, group, name), {})[finding.measure] = finding
    return rows


def _classes_table(classes: Rows) -> Table:
    rows = [
        {
            left("text"): text(name),
            left("by", "grouping"): text(GROUPS.get(group, group), group),
            left("class"): text(one),
            **{
                Column(label, measure.removeprefix("class_")): number(
                    of[measure].value if measure in of else None, ".1%"
                )
                for measure, label in zip(_SHARES, ("of the KL", "of the tokens"), strict=True)
            },
            Column("KL", "kl", "nats per token"): _evident(of["class_kl"]),
            Column("change of loss", "ce_change", "nats per token"): _evident(of["class_ce_change"]),
            Column("documents"): count(of["class_kl"].n),
        }
        for (name, group, one), of in classes.items()
    ]
    return Table.of("classes", "Drift by class of token", rows)


def _evident(finding: Finding) -> Cell:
    cell = value_cell(finding)
    if finding.low is None or finding.n < MIN_DOCUMENTS:
        return replace(cell, shown=Verdict.NO_EVIDENCE.value, more="")
    return cell


def _top_classes(classes: Rows) -> Table:
    """For the terminal the classes with most of the drift of each text."""
    rows = []
    for name in _texts(classes):
        for group in GROUPS:
            own = [(one, of) for (subject, by, one), of in classes.items() if (subject, by) == (name, group)]
            own.sort(key=lambda entry: -entry[1]["class_kl_share"].value if "class_kl_share" in entry[1] else 0.0)
            for one, of in own[:_CLASSES_SHOWN]:
                shares = [of[measure].value if measure in of else None for measure in _SHARES]
                rows.append(
                    {
                        left("text"): text(name),
                        left("class"): text(f"{GROUPS[group]}: {one}"),
                        Column("of the KL"): number(shares[0], ".0%"),
                        Column("of the tokens"): number(shares[1], ".0%"),
                        Column("KL", unit="nats per token"): _evident(of["class_kl"]),
                    }
                )
    return Table.of("classes-top", "Where the drift sits: the classes with most of it", rows)


def _classes_chart(place: int, name: str, classes: Rows) -> Chart:
    groups: dict[str, dict[str, list[float | None]]] = {}
    for (subject, group, one), of in classes.items():
        if subject == name:
            shares = [of[measure].value if measure in of else None for measure in _SHARES]
            groups.setdefault(GROUPS.get(group, group), {})[one] = shares
    return bar_chart(
        groups,
        ["of the KL", "of the tokens"],
        name=f"classes-{place}",
        title=name,
        sentence="Where the upper bar is longer than the lower one, these tokens drifted more than the others.",
    )


def _one(findings: Sequence[Finding], measure: str) -> str:
    return next((interval_text(one.interval.as_dict()) for one in select(findings, measure=measure)), "–")


def layers_in_words(findings: Sequence[Finding], layers: LayerProfile) -> str:
    """The layer that helps most when it alone is put back, and the sample that says so; or why there is none."""
    if layers.unavailable:
        return f"Layers cannot be compared: {layers.unavailable}."
    repaired = select(findings, measure="layer_repaired")
    if not repaired:
        return ""
    best = max(repaired, key=lambda layer: layer.value)
    left_of = next(one for one in select(findings, measure="layer_restored") if one.part == best.part)
    whole = _one(findings, "layer_kl")
    return (
        f"Putting back one layer helps most for {best.part} (of 0 to {len(repaired) - 1}): KL on {best.subject} falls "
        f"from {whole} to {interval_text(left_of.interval.as_dict())}, by {interval_text(best.interval.as_dict())}. "
        f"With all but the layers put back (embeddings, final norm, head), {_one(findings, 'rest_restored')} are left. "
        f"Read on {counted(layers.windows, 'window')}, {counted(layers.tokens, 'token')} of {layers.text}."
    )


def _layer_charts(findings: Sequence[Finding]) -> list[Chart]:
    """Two charts, for the movement of a layer's output is no KL."""
    whole = next((one.value for one in select(findings, measure="layer_kl")), None)
    moved = "‖tuned − base‖ / ‖base‖", "How far each layer’s output moved", (
        "The distance between the two models’ outputs of a layer, as a part of the base’s length. It carries on what "
        "the layers before it moved."
    )  # fmt: skip
    kept = "KL left, nats per token", "What is left of the drift when one layer is put back", (
        "The lower a line, the more of the drift goes through that layer’s output, or is made in that layer."
    )  # fmt: skip
    return [_layer_chart(findings, _MOVED, *moved, None), _layer_chart(findings, _KEPT, *kept, whole)]


def _layer_chart(
    findings: Sequence[Finding],
    lines: Sequence[tuple[str, str, str, str]],
    unit: str,
    title: str,
    sentence: str,
    whole: float | None,
) -> Chart:
    def draw(panel: Panel) -> None:
        for measure, name, colour, mark in lines:
            own = select(findings, measure=measure)
            values, form = [one.value for one in own], own[0].line.form
            titles = [f"{one.part}, {name}: {interval_text(one.interval.as_dict(), form)}" for one in own]
            for place, one in enumerate(own):
                if one.low is not None and one.high is not None:
                    panel.whisker([place, place], [one.low, one.high], colour, 1)
            panel.path(range(len(own)), values, titles, colour, mark, name, sizes=[5] * len(own))
        if whole is not None:
            panel.axes.axhline(whole, color=GREY, linewidth=1.5, linestyle="--", label="nothing put back")
        if lines is _MOVED:
            panel.shares("y")
        panel.axes.set_ylim(bottom=0)
        panel.whole_numbers()

    ends = []
    for measure, name, _, _ in lines:
        own = select(findings, measure=measure)
        form = own[0].line.form
        first, last = (interval_text(one.interval.as_dict(), form) for one in (own[0], own[-1]))
        ends.append(f"{name}: from {first} at {own[0].part} to {last} at {own[-1].part}")
    about = f"{title}, by layer. {'; '.join(ends)}."
    return chart(lines[0][0].replace("_", "-"), title, sentence, about, draw, x="layer", y=unit)


def _layers_table(findings: Sequence[Finding]) -> Table:
    columns = {
        "layer_moved": Column("output moved", "moved", "part of the base’s length"),
        "layer_patched": Column("output put back", "patched", "KL left, nats per token"),
        "layer_restored": Column("layer put back", "restored", "KL left, nats per token"),
        "layer_repaired": Column("repaired by that", "repaired", "nats per token"),
    }
    layers: dict[str, dict[str, Finding]] = {}
    for measure in columns:
        for finding in select(findings, measure=measure):
            layers.setdefault(finding.part, {})[measure] = finding
    rows = [
        {
            left("layer"): text(part.removeprefix("layer ")),
            **{column: interval(of[measure].interval.as_dict()) for measure, column in columns.items()},
            Column("documents"): count(of["layer_moved"].n),
        }
        for part, of in layers.items()
    ]
    return Table.of("layers", "Drift by layer", rows)


def _passage(passage: Passage) -> dict[str, object]:
    tokens = [
        {"text": token, "kl": f"{kl:.2f}", "shade": _shade(kl), "strong": kl >= UNDERLINED}
        for token, kl in zip(passage.tokens or [], passage.kl, strict=True)
    ]
    return {"about": passage, "tokens": tokens, "mean_kl": shown_number(passage.mean_kl, ".2f")}


def _tokens_table(passages: Sequence[Passage]) -> Table:
    rows = [
        {
            left("passage"): text(f"{place}, {passage.text}, {passage.document}"),
            left("token"): text(token),
            Column("KL", "kl", "nats"): number(kl),
        }
        for place, passage in enumerate(passages, start=1)
        for token, kl in zip(passage.tokens or [], passage.kl, strict=True)
    ]
    return Table.of("tokens", "KL of each token of the passages", rows)


def _shade(nats: float) -> str:
    """How much of the shading color, per cent."""
    return f"{min(max(nats, 0.0) / FULL_SHADE, 1.0) * 60:.0f}%"
