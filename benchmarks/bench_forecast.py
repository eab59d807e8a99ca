"""How a run ends, forecast from its first tenth, quarter and half, against how it did end.

    python benchmarks/bench_forecast.py --quick      # prints one JSON line last
    python benchmarks/bench_forecast.py              # writes results/forecast.json

Reads the committed readings of lab/forgetting_laws: ten runs of 100 steps at a constant rate after a warm-up of five.
`alone` forecasts each run from its own readings; its settings were tuned on runs of Verilog, and those of Spanish are
the test. `with_law` also has the joint law of the other ranks of the same domain; nothing of it was tuned on any run.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from shared import finish

SHARES = (0.1, 0.25, 0.5)
MEASURES = ("l_f_rise", "kl", "l_ft")
WARMUP = 5
READINGS = Path(__file__).parents[1] / "lab" / "forgetting_laws" / "results.csv"
# (mean absolute error of the final rise of L_f, at each share) asked for
ASKED = {0.1: 0.25, 0.25: 0.12, 0.5: 0.06}


def value(row: dict[str, Any], measure: str) -> float:
    return float({"l_ft": row["L_ft"], "l_f_rise": row["L_f"] - row["L_f_base"], "kl": row["KL"]}[measure])


def rates_of(end: int) -> list[float]:
    """The sweep's learning rates, over their peak."""
    return [min(1.0, step / WARMUP) for step in range(end)]


def forecasts(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Every measure at every share: the forecast, the truth, and the error of taking the latest reading for it."""
    from keeptune.laws.forecast.forecast import forecast

    end = rows[-1]["N"]
    rates = rates_of(end)
    found = []
    for share in SHARES:
        seen = [row for row in rows if row["N"] <= share * end]
        for measure in MEASURES:
            start = time.process_time()
            said = forecast(
                measure,
                [row["N"] for row in seen],
                [value(row, measure) for row in seen],
                end=end,
                base=value(rows[0], measure),
                rates=rates,
            )
            seconds = time.process_time() - start
            truth = value(rows[-1], measure)
            one = {"run": name, "measure": measure, "share": share, "at": seen[-1]["N"], "readings": len(seen) - 1}
            one |= {"seconds": round(seconds, 4), **said._asdict(), "truth": truth}
            one |= {"error": abs(said.value / truth - 1), "held": said.low <= truth <= said.high}
            found.append(one | {"error_of_no_change": abs(value(seen[-1], measure) / truth - 1)})
    return found


def forecasts_with_law(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """L_ft and the rise of L_f of each run, from the law of the others and its own readings."""
    import numpy as np

    from keeptune.laws.forecast.forecast import forecast_with_law
    from keeptune.laws.joint.fit import JointFit
    from keeptune.laws.readings import Runs

    found = []
    for name, rows in runs.items():
        end = rows[-1]["N"]
        others = [(place, row) for place, (other, of) in enumerate(runs.items()) if other != name for row in of]
        late = [(place, row) for place, row in others if row["N"] > SHARES[0] * end]
        columns = {key: np.array([row[key] for _, row in late], dtype=float) for key in ("P", "N", "L_ft", "L_f")}
        law = JointFit(bootstraps=100).fit(Runs(**columns, run=np.array([place for place, _ in late])))
        base = rows[0]["L_f_base"]
        for share in SHARES:
            seen = [row for row in rows if 0 < row["N"] <= share * end]
            own = {key: [row[key] for row in seen] for key in ("L_ft", "L_f")}
            task, forgetting = forecast_with_law(law, P=rows[0]["P"], steps=[row["N"] for row in seen], **own, end=end)
            for measure, said, less in (("l_f_rise", forgetting, base), ("l_ft", task, 0.0)):
                truth, now = value(rows[-1], measure), value(seen[-1], measure)
                one = {"run": name, "measure": measure, "share": share, "at": seen[-1]["N"], "readings": len(seen)}
                one |= {key: number - less for key, number in said._asdict().items()} | {"truth": truth}
                one |= {"error": abs(one["value"] / truth - 1), "held": one["low"] <= truth <= one["high"]}
                found.append(one | {"error_of_no_change": abs(now / truth - 1)})
    return found


def summary(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By measure and share."""
    lines = []
    for measure in MEASURES:
        for share in SHARES:
            some = [one for one in found if one["measure"] == measure and one["share"] == share]
            if not some:
                continue
            line = {"measure": measure, "share": share, "runs": len(some)}
            for key in ("error", "error_of_no_change"):
                line[f"mean_{key}"] = round(sum(one[key] for one in some) / len(some), 4)
            line["held"] = sum(one["held"] for one in some)
            line["median_width"] = round(median((one["high"] - one["low"]) / abs(one["truth"]) for one in some), 4)
            asked = ASKED[share] if measure == "l_f_rise" else None
            lines.append(line | ({"asked": asked, "met": line["mean_error"] <= asked} if asked else {}))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing written")
    given = parser.parse_args()
    tasks: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with READINGS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = {key: float(row[key]) for key in ("P", "L_ft", "L_f", "L_f_base", "KL")}
            tasks.setdefault(row["data"], {}).setdefault(row["run"], []).append({"N": int(row["N"]), **numbers})
    found = {
        "alone": {
            task: [one for run, rows in runs.items() for one in forecasts(rows, run)] for task, runs in tasks.items()
        },
        "with_law": {task: forecasts_with_law(of) for task, of in tasks.items()},
    }
    result = {
        "tuned_on": "verilog",
        "summary": {way: {task: summary(of) for task, of in by_task.items()} for way, by_task in found.items()},
        "median_seconds": median(one["seconds"] for of in found["alone"].values() for one in of),
        "forecasts": found,
    }
    for way, by_task in result["summary"].items():
        for task, lines in by_task.items():
            for line in lines:
                print(way, task, line)
    finish("forecast", result, quick=given.quick)


if __name__ == "__main__":
    main()
