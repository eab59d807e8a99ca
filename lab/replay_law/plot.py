"""Figure and claims of the replay law and simpler ones; laws.json keeps parameters, ranges and held-out errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.drawing import legend_below
from common.fits import replay_readings
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, Interval, over_units
from keeptune import stats
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.record import fit_replay_law, leave_cells_out
from keeptune.plot_style import COLOURS, GREY, MARKS, PAGE

AFTER = 10
"""Steps that are left out of the fits: the rate warms up over them."""
BOOTSTRAPS = 40
RIVALS = {
    "no_tokens": "a law that knows λ but no pool",
    "power": "forgetting divided by 1 + λ/λ0",
    "constant": "a law that knows only whether there is replay",
    "none": "the joint law, which knows no replay",
}


def figure(rows: list[Row]) -> Figure:
    """Forgetting and task loss at the end of every run, with the law, by λ and pool."""
    rows = centred(rows)
    last = max(row["N"] for row in rows)
    ends = [row for row in rows if row["N"] == last]
    pools = sorted({row["replay_tokens"] for row in ends} - {0})
    # The few readings of size smoke determine no law.
    law = ReplayFit(bootstraps=0).fit(fitted(rows)) if len([row for row in rows if row["N"] > AFTER]) > 20 else None
    drawn = Figure(figsize=(PAGE, 2.7))
    panels = dict(zip(("L_f", "L_ft"), drawn.subplots(1, 2), strict=True))
    fine = np.geomspace(pools[0] / 1.5, pools[-1] * 1.5, 100)
    for place, weight in enumerate(values(ends, "lambda")):
        own = sorted((row for row in ends if row["lambda"] == weight), key=lambda row: row["replay_tokens"])
        colour = GREY if weight == 0 else COLOURS[(place - 1) % len(COLOURS)]
        for name, panel in panels.items():
            less = own[0]["L_f_base"] if name == "L_f" else 0.0
            heights = [row[name] - less for row in own]
            if weight == 0:
                level = np.mean([row[name] for row in own]) - less
                panel.axhline(level, color=GREY, linestyle="--", label="no replay")
                continue
            look = {"linestyle": "none", "marker": MARKS[place - 1], "label": f"λ = {weight:g}"}
            panel.plot([row["replay_tokens"] for row in own], heights, color=colour, **look)
            if law is not None:
                predicted = law.law_.predict(P=ends[0]["P"], N=last, lambda_=weight, tokens=fine)
                panel.plot(fine, getattr(predicted, name) - less, color=colour)
    for panel, what in zip(panels.values(), ("rise of $L_f$", "task loss $L_{ft}$"), strict=True):
        panel.set(xscale="log", xlabel="distinct replay tokens", ylabel=f"{what} (nats per token)")
    panels["L_f"].set_title("What is forgotten; curves: the replay law")
    panels["L_ft"].set_title("What is learned")
    legend_below(drawn, panels["L_f"], ncols=len(panels["L_f"].get_legend_handles_labels()[1]))
    return drawn


def claims(rows: list[Row]) -> list[Claim]:
    """Our own findings: the law predicts cells that it has not seen better than each simpler one."""
    errors = leave_cells_out(fitted(rows))

    def lead(rival: str) -> Interval:
        value, low, high = errors["against"][rival]
        return over_units(stats.Interval(value=value, low=low, high=high, documents=len(errors["cells"])))

    return [
        Claim(
            claim=f"the replay law foretells L_f of unseen λ and pools better than {words}",
            measure="mean error less the law's, nats per token, bootstrap over cells",
            ours=lead(rival),
            runs=len(values(rows, "seed")),
            above=0.0,
        )
        for rival, words in RIVALS.items()
    ]


def centred(rows: list[Row]) -> list[Row]:
    """The rows with each base's own L_f moved to the mean of the bases: a law has one base, and each seed its own."""
    mean = float(np.mean([row["L_f_base"] for row in rows]))
    return [{**row, "L_f": row["L_f"] - row["L_f_base"] + mean, "L_f_base": mean} for row in rows]


def fitted(rows: list[Row]) -> ReplayRuns:
    """The readings that laws are fitted to."""
    return replay_readings([row for row in centred(rows) if row["N"] > AFTER])


def record(rows: list[Row]) -> dict[str, Any]:
    """The law with its intervals, and the errors of all forms on every cell left out."""
    return fit_replay_law(fitted(rows), bootstraps=BOOTSTRAPS)
