"""Where the drift sits: classes of tokens, passages, layers, and what both models write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from keeptune.audit.page.chart import BLUE, GREEN, GREY, ORANGE, Chart, chart_json, error_bar, figure, label, rows_down
from keeptune.audit.page.table import Cell, Column, Table, count, interval, left, number, text
from keeptune.audit.page.words import counted, interval_text, shown_number
from keeptune.audit.verdict import NO_EVIDENCE

GROUPS = {"probability": "the base’s probability", "position": "place in the window", "kind": "kind of token"}
FULL_SHADE = 4.0  # nats: tokens with more are shaded as strongly as these
UNDERLINED = 1.0  # nats from which a token is underlined too, for those who cannot tell the shades
_SHARE = ".1%"


def where_view(where: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["where"]`; each part is None or empty where the report has none."""
    texts = where.get("texts", {})
    layers = where.get("layers")
    return {
        "charts": [_classes_chart(place, name, of["classes"]) for place, (name, of) in enumerate(texts.items(), 1)],
        "classes": _classes_table(texts) if texts else None,
        "unavailable": layers.get("unavailable") if layers else None,
        "layers": _layers(layers) if layers and "unavailable" not in layers else None,
        "passages": [_passage(passage) for passage in where.get("passages", [])],
        "tokens": _tokens_table(where.get("passages", [])),
        "legend": [(nats, _shade(nats)) for nats in (0.0, 0.5, 1.0, 2.0, FULL_SHADE)],
        "underlined": UNDERLINED,
        "full_shade": FULL_SHADE,
        "continuations": where.get("continuations", []),
    }


def _classes_table(texts: dict[str, Any]) -> Table:
    rows = [
        {
            left("text"): text(name),
            left("by", "grouping"): text(GROUPS.get(group, group), group),
            left("class"): text(entry["class"]),
            Column("of the KL", "kl_share"): number(entry["kl_share"], _SHARE),
            Column("of the tokens", "token_share"): number(entry["token_share"], _SHARE),
            Column("KL", "kl", "nats per token"): _evident(entry, "kl"),
            Column("CE change", "ce_change", "nats per token"): _evident(entry, "ce_change"),
            Column("documents"): count(entry["kl"]["documents"]),
            Column("tokens"): count(entry["tokens"]),
        }
        for name, of_text in texts.items()
        for group, entries in of_text["classes"].items()
        for entry in entries
    ]
    return Table.of("classes", "Drift by class of token", rows)


def _evident(entry: dict[str, Any], measure: str) -> Cell:
    """An interval, or that there are too few documents for one; the CSV has the numbers all the same."""
    cell = interval(entry[measure])
    return cell if entry["enough_evidence"] else replace(cell, shown=NO_EVIDENCE, more="")


def _classes_chart(position: int, name: str, classes: dict[str, list[dict[str, Any]]]) -> Chart:
    ticks: list[str] = []
    shown: dict[int, dict[str, Any]] = {}
    for group, entries in classes.items():
        ticks.append(f"<b>{label(GROUPS.get(group, group))}</b>")
        shown.update(enumerate(entries, start=len(ticks)))
        ticks += [label(entry["class"]) for entry in entries]
    bars = [_bars(shown, "kl_share", "of the KL", ORANGE), _bars(shown, "token_share", "of the tokens", GREY)]
    drawn, height = figure(bars, "share", ""), 110 + 24 * len(ticks)
    drawn.update_layout(barmode="group", bargap=0.25, bargroupgap=0, hovermode="closest", height=height, margin_l=10)
    drawn.update_xaxes(tickformat=".0%", rangemode="tozero", showgrid=True, nticks=6)
    rows_down(drawn, ticks)
    drawn.update_yaxes(nticks=len(ticks))
    numbers = "; ".join(
        f"{entry['class']}: {shown_number(entry['kl_share'], _SHARE)} of the KL, "
        f"{shown_number(entry['token_share'], _SHARE)} of the tokens"
        for entry in shown.values()
    )
    return Chart(
        name=f"classes-{position}",
        title=name,
        sentence="Where the upper bar is longer than the lower one, these tokens drifted more than the others.",
        description=f"Share of the KL and of the tokens on {name} by class of token. {numbers}.",
        figure=chart_json(drawn),
        height=height,
    )


def _bars(shown: dict[int, dict[str, Any]], key: str, name: str, colour: str) -> Any:
    bars = go.Bar(x=[entry[key] for entry in shown.values()], y=list(shown), orientation="h", name=name)
    bars.marker = {"color": colour, "line": {"width": 0}}
    bars.hovertemplate = "%{x:.1%}"
    return bars


def _layers(layers: dict[str, Any]) -> dict[str, Any]:
    """Two charts, for the movement of a layer's output is no KL; and the numbers of both."""
    sample = (
        f"Read on {counted(layers['windows'], 'window')}, {counted(layers['tokens'], 'token')} of {layers['text']}. "
        f"With all but the layers put back (embeddings, final norm, head), {interval_text(layers['rest_restored'])} "
        f"nats per token are left of {interval_text(layers['kl'])}."
    )
    moved = _layer_chart(
        layers["layers"],
        {"moved": ("output moved", GREEN, "circle")},
        "‖tuned − base‖ / ‖base‖",
        name="layers-moved",
        title="How far each layer’s output moved",
        sentence="The distance between the two models’ outputs of a layer, as a part of the base’s length. It carries "
        "on what the layers before it moved.",
    )
    kept = _layer_chart(
        layers["layers"],
        {
            "kl_output_patched": ("its output is the base’s", BLUE, "square"),
            "kl_layer_restored": ("the layer is the base’s", ORANGE, "diamond"),
        },
        "KL left, nats per token",
        name="layers-kl",
        title="What is left of the drift when one layer is put back",
        sentence=f"Dashed: the whole drift, {interval_text(layers['kl'])}. The lower a line, the more of the drift "
        "goes through that layer’s output, or is made in that layer.",
        whole=layers["kl"]["value"],
    )
    return {"charts": [moved, kept], "table": _layers_table(layers["layers"]), "sample": sample}


def _layer_chart(
    layers: list[dict[str, Any]],
    lines: dict[str, tuple[str, str, str]],
    unit: str,
    *,
    whole: float | None = None,
    **words: str,
) -> Chart:
    places = [layer["layer"] for layer in layers]
    traces = [_line(places, [layer[key] for layer in layers], *style) for key, style in lines.items()]
    if whole is not None:
        flat = go.Scatter(x=[places[0], places[-1]], y=[whole, whole], name="nothing put back", mode="lines")
        flat.line, flat.hovertemplate = {"color": GREY, "dash": "8px,5px", "width": 2}, "%{y:.4f}"
        traces.append(flat)
    drawn = figure(traces, "layer", unit)
    drawn.update_layout(showlegend=len(traces) > 1)
    drawn.update_xaxes(dtick=max(1, len(places) // 6))
    drawn.update_yaxes(rangemode="tozero")
    ends = "; ".join(
        f"{line}: from {interval_text(layers[0][key])} at layer {places[0]} "
        f"to {interval_text(layers[-1][key])} at layer {places[-1]}"
        for key, (line, _, _) in lines.items()
    )
    shows = f"{words['title']}, by layer. {ends}."
    return Chart(**words, description=shows, figure=chart_json(drawn), height=None)


def _line(places: list[int], intervals: list[dict[str, Any]], name: str, colour: str, symbol: str) -> Any:
    values = [given["value"] for given in intervals]
    line = go.Scatter(x=places, y=values, name=name, mode="lines+markers", hovertemplate="%{y:.4f}")
    line.line, line.marker = {"color": colour, "width": 2}, {"symbol": symbol, "size": 6}
    if all(given["low"] is not None for given in intervals):
        line.error_y = error_bar(intervals, thickness=1, width=0, color=colour)
    return line


def _layers_table(layers: list[dict[str, Any]]) -> Table:
    shown = {
        "moved": Column("output moved", "moved", "part of the base’s length"),
        "kl_output_patched": Column("output put back", "kl_output_patched", "KL left, nats per token"),
        "kl_layer_restored": Column("layer put back", "kl_layer_restored", "KL left, nats per token"),
        "kl_repaired": Column("repaired by that", "kl_repaired", "nats per token"),
    }
    rows = [
        {
            Column("layer"): count(layer["layer"]),
            **{column: interval(layer[key]) for key, column in shown.items()},
            Column("documents"): count(layer["moved"]["documents"]),
        }
        for layer in layers
    ]
    return Table.of("layers", "Drift by layer", rows)


def _passage(passage: dict[str, Any]) -> dict[str, Any]:
    tokens = [
        {"text": token, "kl": f"{kl:.2f}", "shade": _shade(kl), "strong": kl >= UNDERLINED}
        for token, kl in zip(passage["tokens"], passage["kl"], strict=True)
    ]
    return {**passage, "tokens": tokens, "mean_kl": shown_number(passage["mean_kl"], ".2f")}


def _tokens_table(passages: list[dict[str, Any]]) -> Table:
    rows = [
        {
            left("passage"): text(f"{place}, {passage['text']}, {passage['document']}"),
            left("token"): text(token),
            Column("KL", "kl", "nats"): number(kl),
        }
        for place, passage in enumerate(passages, start=1)
        for token, kl in zip(passage["tokens"], passage["kl"], strict=True)
    ]
    return Table.of("tokens", "KL of each token of the passages", rows)


def _shade(nats: float) -> str:
    """How much of the shading colour, per cent."""
    return f"{min(max(nats, 0.0) / FULL_SHADE, 1.0) * 60:.0f}%"
