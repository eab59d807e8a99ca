"""The page of a repair: the frontier of what is kept against what is learned, and the command that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keeptune.plot_style import COLOURS
from keeptune.repair.words import next_command, sentence, table, title_of
from keeptune.report.chart import MARKS, Chart, Panel, chart
from keeptune.report.shell import render
from keeptune.report.words import interval_text, shown_number
from keeptune.train.budget.certificate import RULE


def repair_page(result: Mapping[str, Any]) -> str:
    """The page, from the content of repair.json."""
    certificate = result["certificate"]
    return render(
        "repair.html",
        sentence=sentence(result),
        result=result,
        frontier=_frontier(result) if result["frontier"] else None,
        methods=table(result),
        certificate=certificate,
        rule=RULE,
        next_command=next_command(result) if result["chosen"] else "",
    )


def _frontier(result: Mapping[str, Any]) -> Chart:
    budget, tuned = result["settings"]["budget"], result["tuned"]

    def draw(panel: Panel) -> None:
        for place, name in enumerate(result["titles"]):
            own = sorted((p for p in result["frontier"] if p["method"] == name), key=lambda p: p["kl"]["value"])
            if not own:
                continue
            titles = [
                f"{title_of(result, name)}, strength {p['strength']:.3f}: KL {interval_text(p['kl'])}, "
                f"lost {interval_text(p['lost'], '.1%')}"
                for p in own
            ]
            xs, ys = [p["kl"]["value"] for p in own], [p["lost"]["value"] for p in own]
            look = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
            panel.path(xs, ys, titles, *look, title_of(result, name))
        panel.marks([tuned["kl"]["value"]], [0.0], ["the tuned model"], "#7D858D", "X", name="tuned model")
        panel.rule(x=budget, name="budget")
        panel.shares("y")

    return chart(
        "frontier",
        "What is kept against what is learned",
        "Every mark is a candidate on the rows that it was chosen on. Lower is better at the same KL; what lies to the "
        "left of the line keeps the budget.",
        f"Share of what was learned that is lost, against KL to the base, for {len(result['frontier'])} candidates. "
        f"The tuned model has a KL of {shown_number(tuned['kl']['value'])} and has lost nothing.",
        draw,
        x="KL(base‖candidate), nats per token",
        y="share of learning lost",
        height=400,
    )
