"""The page of `keeptune laws plot`: forgetting against task loss with the line, both losses by steps with the law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from keeptune.laws.figures import Drawing, Loss, OfSize
from keeptune.plot_style import COLOURS, MARKS
from keeptune.report.chart import GREY, Chart, Panel, chart
from keeptune.report.shell import render
from keeptune.report.table import Column, Table, count, number

_TASK = "task loss L_ft, nats per token"
_FORGETTING = "forgetting L_f, nats per token"
_STEPS = "update steps N"


def render_laws(drawing: Drawing) -> str:
    """The page."""
    joint = drawing["joint"]
    return render(
        "laws.html",
        line=drawing["line"],
        why=joint if isinstance(joint, str) else None,
        r2=None if isinstance(joint, str) else joint,
        charts=[
            _against_loss(drawing),
            _along_steps(drawing, "L_ft", "What is learned", _TASK),
            _along_steps(drawing, "L_f", "What is forgotten", _FORGETTING),
        ],
        readings=_readings(drawing["by_P"]),
    )


def _against_loss(drawing: Drawing) -> Chart:
    line = drawing["line"]

    def draw(panel: Panel) -> None:
        for place, of in enumerate(drawing["by_P"]):
            titles = [f"loss {x:.4f}, forgetting {y:.4f}" for x, y in zip(of["L_ft"], of["L_f"], strict=True)]
            _marks(panel, place, of, "L_ft", "L_f", titles)
        panel.line(line["L_ft"], [line["s"] - line["c"] * loss for loss in line["L_ft"]], GREY, name="line")

    return chart(
        "line",
        "What learning costs",
        "Every mark is a reading. Training walks from the right to the left: the steeper the line, the more is "
        "forgotten for what is learned.",
        f"Forgetting against task loss; the line is L_f = {-line['c']:.4f}·L_ft + {line['s']:.4f}, "
        f"R² {line['r2']:.3f}.",
        draw,
        x=_TASK,
        y=_FORGETTING,
        height=380,
    )


def _along_steps(drawing: Drawing, loss: Loss, title: str, axis: str) -> Chart:
    def draw(panel: Panel) -> None:
        for place, of in enumerate(drawing["by_P"]):
            titles = [f"step {x:.0f}: {y:.4f}" for x, y in zip(of["N"], of[loss], strict=True)]
            _marks(panel, place, of, "N", loss, titles)
            if "fit" in of:
                panel.line(of["fit"]["N"], of["fit"][loss], COLOURS[place % len(COLOURS)])

    fitted = not isinstance(drawing["joint"], str)
    first, last = drawing["by_P"][0], drawing["by_P"][-1]
    return chart(
        loss,
        title,
        "Marks are readings" + (", curves the joint law." if fitted else "; there is no joint law to draw."),
        f"{axis} against update steps, by tuned parameters. "
        f"With P = {first['P']:,.0f} the last reading is {first[loss][-1]:.4f}, "
        f"with P = {last['P']:,.0f} it is {last[loss][-1]:.4f}.",
        draw,
        x=_STEPS,
        y=axis,
        height=380,
    )


def _marks(panel: Panel, place: int, of: OfSize, x: Literal["N", "L_ft"], y: Loss, titles: Sequence[str]) -> None:
    colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
    panel.marks(of[x], of[y], titles, colour, mark, name=f"P = {of['P']:,.0f}", size=5)


def _readings(by_P: Sequence[OfSize]) -> Table:
    rows = [
        {
            Column("P", unit="tuned parameters"): count(round(of["P"])),
            Column("N", unit="update steps"): count(round(steps)),
            Column("L_ft", unit="nats per token"): number(task),
            Column("L_f", unit="nats per token"): number(forgetting),
        }
        for of in by_P
        for steps, task, forgetting in zip(of["N"], of["L_ft"], of["L_f"], strict=True)
    ]
    return Table.of("readings", "The readings", rows)
