"""How a run ends, forecast from its first quarter, half and three quarters, against how it did end.

    python benchmarks/bench_forecast.py --quick      # prints one JSON line last
    python benchmarks/bench_forecast.py              # writes results/forecast.json

Reads the committed readings of every sweep of the lab (`forecast_sweeps.SWEEPS`). Constants were chosen on the sweeps
marked so, and methods are judged on the others:

- `no_change`: the latest reading, and `mean_of_3`, the mean of the last three
- `line_in_log`, `line_in_root`: straight lines in log τ and √τ through the readings since half of the way; τ is the
  cumulated learning rate. `half_line_in_root` goes on at half of the slope
- `power`: a power law of the change from the base, through the same readings
- `mixture`: the mixture of shifted powers that keeptune had for all measures, with a guess of what a falling rate takes
  off; results/forecast_mixture.csv holds what its code, at commit c509c78, forecast for the same readings
- `library`: what keeptune has now, by the rule below; for the task loss the mixture without that guess, which doubled
  its errors on the falling rates of forecast/english-spanish

A method's error in a sweep is its mean absolute error over the mean absolute change of the runs from the base; numbers
of several sweeps are means over sweeps. Rule, set before the judged sweeps were read (commit 13e72cc): for each measure
`half_line_in_root` is taken if on the judged sweeps it errs less than no change and than the mixture; else what errs
least.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from forecast_sweeps import MEASURES, SWEEPS, Run, runs
from shared import RESULTS, finish

SHARES = (0.25, 0.5, 0.75)
MIXTURE = RESULTS / "forecast_mixture.csv"
Line = dict[str, Any]


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def line(seen: Line, clock: Callable[[Any], Any], slowing: float = 1.0) -> float:
    """The end of a straight line in a clock of τ, from the latest reading on, at its slope times `slowing`."""
    tau, values = seen["tau"], seen["values"]
    first = min(int(np.searchsorted(tau, 0.5 * tau[-1])), len(tau) - 3)
    slope = np.polyfit(clock(tau[first:]), values[first:], 1)[0]
    return float(values[-1] + slowing * slope * (clock(seen["tau_end"]) - clock(tau[-1])))


def power(seen: Line) -> float:
    """A power law of the change from the base, through the same readings; no change where they show none."""
    change = np.abs(seen["values"] - seen["base"])
    now = seen["values"][-1]
    if change[-3:].min() <= 0:
        return float(now)
    logs = {**seen, "values": np.log(np.maximum(change, 1e-12))}
    return float(seen["base"] + (now - seen["base"]) * np.exp(line(logs, np.log) - logs["values"][-1]))


METHODS: dict[str, Callable[[Line], float]] = {
    "no_change": lambda seen: float(seen["values"][-1]),
    "mean_of_3": lambda seen: float(seen["values"][-3:].mean()),
    "line_in_log": lambda seen: line(seen, np.log),
    "line_in_root": lambda seen: line(seen, np.sqrt),
    "half_line_in_root": lambda seen: line(seen, np.sqrt, 0.5),
    "power": power,
}


def forecasts(run: Run, before: dict[tuple[str, ...], tuple[float, ...]]) -> list[Line]:
    """Every measure at every share by every method, and the truth.

    A forecast is made at the first reading at or after the share, if there are three by then and the run goes on.
    """
    from keeptune.laws.forecast.forecast import forecast

    tau, steps, found = np.cumsum(run.rates), np.array(run.steps), []
    for measure, values in run.values.items():
        read = np.array(values)
        base = read[0] if steps[0] == 0 or measure == "l_ft" else 0.0
        for share in SHARES:
            at = next(place for place, step in enumerate(steps) if step and step >= share * run.end)
            kept = (steps > 0) & (np.arange(len(steps)) <= at)
            key = (run.sweep, run.name, measure, f"{share:g}")
            if steps[at] >= run.end or kept.sum() < 3 or key not in before:
                continue
            given = base if steps[0] == 0 and measure == "l_ft" else None
            said = forecast(measure, steps[kept], read[kept], end=run.end, base=given, rates=run.rates)
            seen = {"tau": tau[steps[kept] - 1], "values": read[kept], "base": base, "tau_end": tau[-1]}
            one: Line = {"sweep": run.sweep, "run": run.name, "measure": measure, "share": share}
            one |= {"at": int(steps[at]), "end": run.end, "change": abs(read[-1] - base), "truth": read[-1]}
            one |= {"library": said, "mixture": before[key]}
            found.append(one | {name: (method(seen),) for name, method in METHODS.items()})
    return found


def summary(found: Sequence[Line]) -> list[Line]:
    """By kind of sweep, measure and share: each method's error, and what its intervals hold; means over sweeps."""
    lines = []
    for kind in ("chosen", "judged"):
        for measure in MEASURES:
            for share in SHARES:
                some = [one for one in found if (one["measure"], one["share"]) == (measure, share)]
                groups = [[one for one in some if one["sweep"] == sweep] for sweep in SWEEPS if SWEEPS[sweep] == kind]
                lines.append({"sweeps_are": kind, "measure": measure, "share": share, **of_groups(groups)})
    return lines


def of_groups(groups: Sequence[Sequence[Line]]) -> Line:
    """The errors of every method on some sweeps, and coverage and width of intervals."""
    groups = [group for group in groups if group]
    line: Line = {"sweeps": len(groups), "runs": sum(map(len, groups))}
    for name in ("library", "mixture", *METHODS):
        line[f"error_{name}"] = round(mean(error(group, name) for group in groups), 4)
    for name in ("library", "mixture"):
        held = [mean(one[name][1] <= one["truth"] <= one[name][2] for one in group) for group in groups]
        line[f"held_{name}"], line[f"held_{name}_worst_sweep"] = round(mean(held), 4), round(min(held), 4)
        widths = [mean(one[name][2] - one[name][1] for one in group) / mean_change(group) for group in groups]
        line[f"width_{name}"] = round(mean(widths), 4)
    return line


def mean_change(group: Sequence[Line]) -> float:
    return mean(one["change"] for one in group)


def error(group: Sequence[Line], name: str) -> float:
    """Of a method in one sweep."""
    return mean(abs(one[name][0] - one["truth"]) for one in group) / mean_change(group)


def by_sweep(found: Sequence[Line]) -> list[Line]:
    """Each sweep by itself, a line for each measure and share."""
    keys = dict.fromkeys((one["sweep"], one["measure"], one["share"]) for one in found)
    lines = []
    for sweep, measure, share in keys:
        group = [one for one in found if (one["sweep"], one["measure"], one["share"]) == (sweep, measure, share)]
        line = {"sweep": sweep, "sweeps_are": SWEEPS[sweep], "measure": measure, "share": share, **of_groups([group])}
        lines.append({name: value for name, value in line.items() if not name.endswith("worst_sweep")})
    return lines


def verdicts(lines: Sequence[Line]) -> dict[str, Line]:
    """The rule: mean errors on judged sweeps, over shares, by measure, and the method that is taken."""
    found = {}
    for measure in MEASURES:
        of_measure = [one for one in lines if (one["sweeps_are"], one["measure"]) == ("judged", measure)]
        errors = {name: round(mean(one[f"error_{name}"] for one in of_measure), 4) for name in _COMPARED}
        candidate, others = "half_line_in_root", {name: errors[name] for name in ("mixture", *METHODS)}
        better = errors[candidate] < min(errors["no_change"], errors["mixture"])
        taken = candidate if better else min(others, key=others.__getitem__)
        held = round(mean(one["held_library"] for one in of_measure), 4)
        found[measure] = {"taken": taken, "errors": errors, "held": held}
    return found


_COMPARED = ("library", "mixture", *METHODS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing written")
    given = parser.parse_args()
    with MIXTURE.open(encoding="utf-8", newline="") as file:
        before = {
            (row["sweep"], row["run"], row["measure"], row["share"]): tuple(
                float(row[end]) for end in ("value", "low", "high")
            )
            for row in csv.DictReader(file)
        }
    found = [one for run in runs() for one in forecasts(run, before)]
    lines = summary(found)
    result = {"verdicts": verdicts(lines), "summary": lines, "by_sweep": by_sweep(found)}
    for one in (*lines, *result["verdicts"].items()):
        print(one)
    finish("forecast", result, quick=given.quick)


if __name__ == "__main__":
    main()
