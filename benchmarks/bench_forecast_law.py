"""How a run ends, forecast from the law of other ranks and its first tenth, quarter and half, against how it did end.

    python benchmarks/bench_forecast_law.py --quick      # prints one JSON line last
    python benchmarks/bench_forecast_law.py              # writes results/forecast_law.json

Reads the committed readings of lab/forgetting_laws: ten runs of 100 steps on SmolLM2, five ranks of two domains. The
joint law is fitted to the other four ranks of the run's domain. Nothing of it was tuned on any run.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from forecast_sweeps import LAB
from shared import finish

LAW_SHARES = (0.1, 0.25, 0.5)
Line = dict[str, Any]


def forecasts_with_law(rows: Sequence[dict[str, str]]) -> list[Line]:
    """L_ft and the rise of L_f of each run of a domain, from the law of the others and its own readings."""
    from keeptune.laws.forecast.forecast import forecast_with_law
    from keeptune.laws.joint.fit import JointFit
    from keeptune.laws.readings import Runs

    names = list(dict.fromkeys(row["run"] for row in rows))
    columns = {key: np.array([float(row[key]) for row in rows]) for key in ("P", "N", "L_ft", "L_f", "L_f_base")}
    run_M, found = np.array([names.index(row["run"]) for row in rows]), []
    end = columns["N"].max()
    for number, name in enumerate(names):
        others, own = (run_M != number) & (columns["N"] > LAW_SHARES[0] * end), run_M == number
        law = JointFit(bootstraps=100).fit(
            Runs(**{key: columns[key][others] for key in ("P", "N", "L_ft", "L_f")}, run=run_M[others])
        )
        base, P = columns["L_f_base"][own][0], columns["P"][own][0]
        for share in LAW_SHARES:
            seen = own & (columns["N"] > 0) & (columns["N"] <= share * end)
            read = {"steps": columns["N"][seen], "L_ft": columns["L_ft"][seen], "L_f": columns["L_f"][seen]}
            said = forecast_with_law(law, P=P, **read, end=int(end))
            for measure, of, less in (("l_f_rise", said[1], base), ("l_ft", said[0], 0.0)):
                truth = columns["L_f" if less else "L_ft"][own][-1] - less
                one = {"run": name, "measure": measure, "share": share, "truth": truth}
                one |= {key: number - less for key, number in of._asdict().items()}
                found.append(one | {"error": abs(one["value"] / truth - 1), "held": one["low"] <= truth <= one["high"]})
    return found


def law_summary(found: Sequence[Line]) -> list[Line]:
    """By measure and share: mean relative error of the end, and how many intervals held it."""
    lines = []
    for measure in ("l_f_rise", "l_ft"):
        for share in LAW_SHARES:
            some = [one for one in found if (one["measure"], one["share"]) == (measure, share)]
            line = {"measure": measure, "share": share, "runs": len(some), "held": sum(one["held"] for one in some)}
            lines.append(line | {"mean_error": round(mean(one["error"] for one in some), 4)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing written")
    given = parser.parse_args()
    with (LAB / "forgetting_laws" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    domains = dict.fromkeys(row["data"] for row in rows)
    found = {domain: forecasts_with_law([row for row in rows if row["data"] == domain]) for domain in domains}
    result = {"summary": {domain: law_summary(of) for domain, of in found.items()}, "forecasts": found}
    for one in result["summary"].items():
        print(one)
    finish("forecast_law", result, quick=given.quick)


if __name__ == "__main__":
    main()
