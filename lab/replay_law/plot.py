"""The replay law and simpler ones fitted to results.csv: their picture, and how they foretell cells left out.

    python lab/replay_law/plot.py

Writes figure.svg and figure.png, and laws.json: parameters, ranges, and the errors on every cell left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from grid import Row, draw, read_csv
from matplotlib.figure import Figure
from stats import Claim, Interval

from keeptune.laws.joint.record import write_laws
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.heldout import leave_cells_out
from keeptune.laws.replay.record import fit_replay_law
from keeptune.plot_style import COLOURS, GREY, MARKS, PAGE

HERE = Path(__file__).resolve().parent
# The rate warms up over the first ten steps.
AFTER = 10
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
    weights = sorted({row["lambda"] for row in ends})
    pools = sorted({row["replay_tokens"] for row in ends} - {0})
    law = _law(rows)
    drawn = Figure(figsize=(PAGE, 2.7))
    forgotten, learned = drawn.subplots(1, 2)
    fine = np.geomspace(pools[0] / 1.5, pools[-1] * 1.5, 100)
    for place, weight in enumerate(weights):
        own = sorted((row for row in ends if row["lambda"] == weight), key=lambda row: row["replay_tokens"])
        colour = GREY if weight == 0 else COLOURS[(place - 1) % len(COLOURS)]
        for panel, name in ((forgotten, "L_f"), (learned, "L_ft")):
            less = own[0]["L_f_base"] if name == "L_f" else 0.0
            if weight == 0:
                panel.axhline(np.mean([row[name] for row in own]) - less, color=GREY, linestyle="--", label="no replay")
            else:
                seen = [row["replay_tokens"] for row in own], [row[name] - less for row in own]
                panel.plot(*seen, linestyle="none", marker=MARKS[place - 1], color=colour, label=f"λ = {weight:g}")
            if weight and law is not None:
                said = law.law_.predict(P=ends[0]["P"], N=last, lambda_=weight, tokens=fine)
                panel.plot(fine, getattr(said, name) - less, color=colour)
    for panel, what in (
        (forgotten, "rise of $L_f$ (nats per token)"),
        (learned, "task loss $L_{ft}$ (nats per token)"),
    ):
        panel.set(xscale="log", xlabel="distinct replay tokens", ylabel=what)
    forgotten.set_title("What is forgotten; curves: the replay law")
    learned.set_title("What is learned")
    handles, labels = forgotten.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawn


def claims(rows: list[Row]) -> list[Claim]:
    """That the law foretells cells it has not seen better than each simpler one."""
    found = leave_cells_out(_runs(rows))
    return [
        Claim(
            claim=f"the replay law foretells L_f of unseen λ and pools better than {words}",
            measure="mean error less the law's, nats per token, bootstrap over cells",
            ours=Interval(*found["against"][rival], len(found["cells"])),
            runs=len({row["seed"] for row in rows}),
            above=0.0,
        )
        for rival, words in RIVALS.items()
    ]


def centred(rows: list[Row]) -> list[Row]:
    """The rows with each base's own L_f moved to the mean of the bases: a law has one base, each seed its own."""
    mean = float(np.mean([row["L_f_base"] for row in rows]))
    return [{**row, "L_f": row["L_f"] - row["L_f_base"] + mean, "L_f_base": mean} for row in rows]


def _runs(rows: list[Row]) -> ReplayRuns:
    late = [row for row in centred(rows) if row["N"] > AFTER]
    names = list(dict.fromkeys(row["run"] for row in late))
    columns = {name: np.array([row[name] for row in late], dtype=np.float64) for name in ("P", "N", "L_ft", "L_f")}
    return ReplayRuns(
        **columns,
        run=np.array([names.index(row["run"]) for row in late]),
        lambda_=np.array([row["lambda"] for row in late], dtype=np.float64),
        tokens=np.array([row["replay_tokens"] for row in late], dtype=np.float64),
        L_f_base=float(rows[0]["L_f_base"]),
    )


def _law(rows: list[Row]) -> Any:
    """The law fitted; None at size smoke, whose few readings determine none."""
    late = [row for row in rows if row["N"] > AFTER]
    return ReplayFit(bootstraps=0).fit(_runs(rows)) if len(late) > 20 else None


if __name__ == "__main__":
    draw(HERE, figure)
    if len(sys.argv) == 1:
        write_laws(HERE / "laws.json", fit_replay_law(_runs(read_csv(HERE / "results.csv")), bootstraps=BOOTSTRAPS))
