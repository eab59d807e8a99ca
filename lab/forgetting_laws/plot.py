"""The laws of forgetting fitted to results.csv, their picture, and what is claimed of them.

    python lab/forgetting_laws/plot.py

Writes figure.svg and figure.png, and laws.json: R², parameters and errors on what was held out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from grid import Row, draw, read_csv
from matplotlib.figure import Figure
from stats import Claim, Interval, bootstrap

from keeptune.laws.figures import drawing
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.joint.record import fit_laws
from keeptune.laws.plots import laws_panels, legend
from keeptune.laws.readings import Runs
from keeptune.laws.robust import r_squared
from keeptune.plot_style import PAGE
from keeptune.storage import write_json

HERE = Path(__file__).resolve().parent
# Of 100 steps the first tenth: the rate warms up, and L_ft is the base's. The paper leaves out 50 of 260.
AFTER = 0.1
PAPER = {"line": ".945 and .974", "joint": ".960 and .977"}


def domains(rows: list[Row]) -> dict[str, Runs]:
    """The readings of each domain."""
    found = {}
    after = AFTER * max(row["N"] for row in rows)
    for domain in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == domain and row["N"] > after]
        names = list(dict.fromkeys(row["run"] for row in own))
        columns = {name: np.array([row[name] for row in own], dtype=np.float64) for name in ("P", "N", "L_ft", "L_f")}
        found[domain] = Runs(**columns, run=np.array([names.index(row["run"]) for row in own]))
    return found


def figure(rows: list[Row]) -> Figure:
    """A row of three panels a domain."""
    runs = domains(rows)
    drawn = Figure(figsize=(PAGE, 2.3 * len(runs) + 0.4))
    panels = drawn.subplots(len(runs), 3, squeeze=False)
    for line, (domain, of) in zip(panels, runs.items(), strict=True):
        found = drawing(of)
        laws_panels(line, found)
        line[0].set_title(f"{domain.capitalize()}, line: $R^2$ {found['line']['r2']:.3f}")
    legend(drawn, panels[0, 0], columns=6)
    return drawn


def claims(rows: list[Row]) -> list[Claim]:
    """R² of both laws in each domain; the interval is over resampled runs, the law staying as fitted."""
    found = []
    for domain, runs in domains(rows).items():
        line, joint = LineFit(bootstraps=0).fit(runs), JointFit(bootstraps=0).fit(runs)
        said = {
            "line": line.predict(L_ft=runs.L_ft).value,
            "joint": joint.predict(P=runs.P, N=runs.N).L_f.value,
        }
        words = {
            "line": f"forgetting falls on a line in the task loss, whatever rank and step ({domain})",
            "joint": f"tuned parameters and steps foretell forgetting by a joint power law ({domain})",
        }
        for law, claim in words.items():
            measure = f"R² of L_f, bootstrap over {runs.count} ranks"
            found.append(
                Claim(claim=claim, paper=f"R² {PAPER[law]}", measure=measure, ours=r2(runs, said[law]), above=0.9)
            )
    return found


def r2(runs: Runs, said: Any) -> Interval:
    """R² of L_f as said, over resampled runs."""
    places = [np.flatnonzero(runs.run == run) for run in sorted(set(runs.run.tolist()))]

    def statistic(drawn: Any) -> float:
        chosen = np.concatenate([places[run] for run in drawn])
        return r_squared(runs.L_f[chosen], said[chosen])

    return bootstrap(statistic, len(places))


def summary(runs: Runs) -> dict[str, Any]:
    """What a reader of the laws wants of one domain."""
    laws = fit_laws(runs)
    shown = ("params", "spread", "r2", "weak")
    found = {law: {key: laws[law][key] for key in shown if key in laws[law]} for law in ("line", "joint")}
    return {"readings": len(runs), "runs": runs.count, **found, "held_out": laws["held_out"]}


if __name__ == "__main__":
    draw(HERE, figure)
    if len(sys.argv) == 1:
        write_json(
            HERE / "laws.json", {name: summary(of) for name, of in domains(read_csv(HERE / "results.csv")).items()}
        )
