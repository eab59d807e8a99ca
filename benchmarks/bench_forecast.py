"""How a run ends, forecast from its first tenth, quarter and half, against how it did end.

    python benchmarks/bench_forecast.py --quick      # prints one JSON line last
    python benchmarks/bench_forecast.py              # writes results/forecast.json

Reads the committed readings of lab/forgetting_laws: ten runs of 100 steps at a constant rate after a warm-up of five.
Settings of the forecast were tuned on runs of Verilog alone; those of Spanish are the test.
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
    from keeptune.laws.forecast import forecast

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


def summary(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By measure and share."""
    lines = []
    for measure in MEASURES:
        for share in SHARES:
            some = [one for one in found if one["measure"] == measure and one["share"] == share]
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
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with READINGS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = {key: float(row[key]) for key in ("L_ft", "L_f", "L_f_base", "KL")}
            runs.setdefault((row["data"], row["run"]), []).append({"N": int(row["N"]), **numbers})
    by_task: dict[str, list[dict[str, Any]]] = {}
    for (task, run), rows in runs.items():
        by_task.setdefault(task, []).extend(forecasts(rows, run))
    result = {
        "tuned_on": "verilog",
        "summary": {task: summary(found) for task, found in by_task.items()},
        "median_seconds": median(one["seconds"] for found in by_task.values() for one in found),
        "forecasts": by_task,
    }
    for task, lines in result["summary"].items():
        for line in lines:
            print(task, line)
    finish("forecast", result, quick=given.quick)


if __name__ == "__main__":
    main()
