"""Figure, table and claims of forecasts on runs whose rate falls."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import legend_below, panels
from common.grid import Row
from common.small.curves import values
from common.small.schedules import rate_at
from common.stats import Claim, Interval, measured, over_seeds
from common.tables import markdown
from keeptune.laws.forecast.forecast import FIRST_SHARE, Measure, Prediction, forecast
from keeptune.plot_style import BLUE, GREY

SHARES = (FIRST_SHARE, 0.5, 0.75)
MEASURES: dict[Measure, str] = {"l_ft": "task loss", "l_f_rise": "rise of L_f", "kl": "KL"}


def reading(row: Row, measure: Measure) -> float:
    """The value of a measure, nats per token."""
    return float({"l_ft": row["L_ft"], "l_f_rise": row["L_f"] - row["L_f_base"], "kl": row["KL"]}[measure])


def runs(rows: list[Row], pair: str) -> list[list[Row]]:
    """The runs of one pair of texts, each from the base's reading to the last."""
    found: list[list[Row]] = []
    for row in rows:
        if row["pair"] == pair:
            if row["N"] == 0:
                found.append([])
            found[-1].append(row)
    return found


def forecast_at(run: list[Row], measure: Measure, share: float) -> tuple[Prediction, float, float] | None:
    """The forecast at the first reading after a share of the run, the latest reading, and the truth.

    None if the run has too few readings by then.
    """
    end = run[-1]["N"]
    at = next(place for place, row in enumerate(run) if row["N"] >= share * end and row["N"])
    if at < 3 or run[at]["N"] == end:
        return None
    seen, rates = run[: at + 1], [rate_at(step, {**run[0], "steps": end}) for step in range(end)]
    base = reading(run[0], measure) if measure == "l_ft" else None
    read = [reading(row, measure) for row in seen]
    said = forecast(measure, [row["N"] for row in seen], read, end=end, base=base, rates=rates)
    return said, read[-1], reading(run[-1], measure)


def errors(rows: list[Row], pair: str, measure: Measure, share: float) -> list[tuple[float, float, bool]]:
    """Of each run: the forecast's error and that of no further change, over the run's whole change, and whether the
    interval holds the end."""
    found = []
    for run in runs(rows, pair):
        if (given := forecast_at(run, measure, share)) is not None:
            said, now, truth = given
            change = abs(truth - (reading(run[0], measure) if measure == "l_ft" else 0.0))
            found.append((abs(said.value - truth) / change, abs(now - truth) / change, said.low <= truth <= said.high))
    return found


def figure(rows: list[Row]) -> Any:
    """A panel per measure: mean error by share of the run, of the forecast and of no further change; dots are runs."""
    drawn, axes = panels(2.6, len(MEASURES), squeeze=False, sharey=True)
    for axis, (measure, name) in zip(axes[0], MEASURES.items(), strict=True):
        for pair, style in zip(values(rows, "pair"), ("-", "--"), strict=False):
            found = {share: errors(rows, pair, measure, share) for share in SHARES}
            found = {share: of for share, of in found.items() if of}
            for place, (label, color) in enumerate((("forecast", BLUE), ("no further change", GREY))):
                middle = [float(np.mean([one[place] for one in of])) for of in found.values()]
                axis.plot(list(found), middle, style, marker="o", color=color, label=f"{label}, {pair}")
                dots = [(share, one[place]) for share, of in found.items() for one in of]
                axis.plot(*zip(*dots, strict=True), ".", color=color, markersize=2.5, alpha=0.5)
        axis.set_xlabel("share of the run")
        axis.set_title(name)
    axes[0][0].set_ylabel("error over the run's change")
    legend_below(drawn, axes[0][0], ncols=2)
    return drawn


def table(rows: list[Row]) -> str:
    """Errors and what the intervals hold, by pair of texts, measure and share."""
    lines = []
    for pair in values(rows, "pair"):
        for measure, name in MEASURES.items():
            for share in SHARES:
                if found := errors(rows, pair, measure, share):
                    own, still = (float(np.mean([one[place] for one in found])) for place in (0, 1))
                    held = sum(one[2] for one in found)
                    lines.append([pair, name, f"{share:g}", f"{own:.1%}", f"{still:.1%}", f"{held} of {len(found)}"])
    return markdown(["texts", "measure", "share of the run", "forecast", "no further change", "in its interval"], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """On the pair that nothing was chosen on, against no further change."""
    pair = values(rows, "pair")[-1]

    def claim(measure: Measure) -> Claim | None:
        found = errors(rows, pair, measure, 0.5)
        if not found:
            return None
        ours: Interval = over_seeds([own - still for own, still, _ in found])
        return Claim(
            claim=f"half-way, a forecast of the final {MEASURES[measure]} errs less than no further change",
            measure=f"its error less that of no change, over the change of the run, {pair}, over runs",
            ours=ours,
            below=0.0,
        )

    return measured(*(claim(measure) for measure in MEASURES))
