"""Figure and claims of the laws of forgetting, and what laws.json keeps: R², parameters and held-out errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.fits import late, readings
from common.grid import Row
from common.stats import Claim, Interval, over_units
from keeptune.laws.figures import drawing, laws_panels, legend
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.joint.record import fit_laws
from keeptune.laws.readings import Runs
from keeptune.plot_style import PAGE
from keeptune.stats import bootstrap


def domains(rows: list[Row]) -> dict[str, Runs]:
    """The readings of each domain."""
    names = dict.fromkeys(row["data"] for row in rows)
    return {
        name: readings([row for row in late(rows) if row["data"] == name], lambda row: row["run"]) for name in names
    }


def figure(rows: list[Row]) -> Figure:
    """A row of three panels per domain."""
    runs = domains(rows)
    drawn = Figure(figsize=(PAGE, 2.3 * len(runs) + 0.4))
    panels = drawn.subplots(len(runs), 3, squeeze=False)
    for line, (domain, of) in zip(panels, runs.items(), strict=True):
        fits = drawing(of)
        laws_panels(line, fits)
        line[0].set_title(f"{domain.capitalize()}, line: $R^2$ {fits['line']['r2']:.3f}")
    legend(drawn, panels[0, 0], columns=6)
    return drawn


def claims(rows: list[Row]) -> list[Claim]:
    """R² of both laws in each domain. The interval is over resampled runs, with the law as fitted to all of them."""
    found = []
    for domain, runs in domains(rows).items():
        line, joint = LineFit(bootstraps=0).fit(runs), JointFit(bootstraps=0).fit(runs)
        on_line, by_joint = line.predict(L_ft=runs.L_ft).value, joint.predict(P=runs.P, N=runs.N).L_f.value
        for claim, paper, predicted in (
            ("forgetting falls on a line in the task loss, whatever rank and step", ".945 and .974", on_line),
            ("tuned parameters and steps foretell forgetting by a joint power law", ".960 and .977", by_joint),
        ):
            found.append(
                Claim(
                    claim=f"{claim} ({domain})",
                    paper=f"R² {paper}",
                    measure=f"R² of L_f, bootstrap over {runs.count} ranks",
                    ours=r2(runs, predicted),
                    above=0.9,
                )
            )
    return found


def r2(runs: Runs, predicted: Any) -> Interval:
    """R² of the predicted L_f, by a bootstrap of the runs."""
    of_readings = np.stack([(runs.L_f - predicted) ** 2, runs.L_f**2, runs.L_f, np.ones(len(runs.L_f))], axis=1)
    of_runs = np.stack([of_readings[runs.run == run].sum(axis=0) for run in np.unique(runs.run)])

    def statistic(sums: Any) -> Any:
        left, squares, total, readings = np.moveaxis(sums, -1, 0)
        return 1 - left / (squares - total**2 / readings)

    return over_units(bootstrap(statistic, of_runs, most=1.0))


def record(rows: list[Row]) -> dict[str, Any]:
    """Both laws of each domain, and their errors on what was held out."""
    return {name: _summary(runs) for name, runs in domains(rows).items()}


def _summary(runs: Runs) -> dict[str, Any]:
    laws = fit_laws(runs)
    shown = ("params", "spread", "r2", "weak")
    kept = {law: {key: laws[law][key] for key in shown if key in laws[law]} for law in ("line", "joint")}
    return {"readings": len(runs), "runs": runs.count, **kept, "held_out": laws["held_out"]}
