"""How a run ends, forecast from its first tenth, quarter and half, against how it did end.

    python benchmarks/bench_forecast.py lab/forgetting_laws/runs --quick      # prints one JSON line last
    python benchmarks/bench_forecast.py lab/forgetting_laws/runs              # writes results/forecast.json

RUNS are folders that hold runs.jsonl, at any depth. A run counts where its last reading is at its last step (--steps).
Settings of the forecast were tuned on runs of Verilog alone; those of Spanish are the test.
"""

from __future__ import annotations

import argparse
import json
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
# (mean absolute error of the final rise of L_f, at each share) asked for
ASKED = {0.1: 0.25, 0.25: 0.12, 0.5: 0.06}


def value(row: dict[str, Any], measure: str) -> float:
    return float({"l_ft": row["L_ft"], "l_f_rise": row["L_f"] - row["L_f_base"], "kl": row["KL"]}[measure])


def rates_of(run: Path, end: int) -> list[float]:
    """The learning rates of the run, by its settings: constant, or the cosine of `keeptune tune`, after a warm-up."""
    import torch
    from transformers import get_scheduler

    from keeptune.train.forecast_callback import rates

    sft = json.loads((run.parent / "run.json").read_text())["settings"]["sft"]
    warmup = sft.get("warmup_steps", 0.05)
    steps = int(warmup) if warmup >= 1 else -int(-end * warmup // 1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = sft.get("lr_scheduler_type", "cosine")
    found = rates(get_scheduler(name, optimizer, num_warmup_steps=steps, num_training_steps=end), end)
    if isinstance(found, str):
        raise SystemExit(f"{run}: {found}")
    return found


def forecasts(run: Path, name: str, end: int) -> list[dict[str, Any]]:
    """Every measure at every share: the forecast, the truth, and the error of taking the latest reading for it."""
    from keeptune.laws.forecast import forecast
    from keeptune.train.runs import read_rows

    rows, rates = read_rows(run), rates_of(run, end)
    found = []
    for share in SHARES:
        seen = [row for row in rows if row["step"] <= share * end]
        for measure in MEASURES:
            start = time.process_time()
            said = forecast(
                measure,
                [row["step"] for row in seen],
                [value(row, measure) for row in seen],
                end=end,
                base=value(rows[0], measure),
                rates=rates,
            )
            seconds = time.process_time() - start
            truth = value(rows[-1], measure)
            one = {"run": name, "measure": measure, "share": share, "at": seen[-1]["step"], "readings": len(seen) - 1}
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
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100, help="the last step of a finished run")
    parser.add_argument("--quick", action="store_true", help="nothing written")
    given = parser.parse_args()
    from keeptune.train.runs import read_rows

    by_task: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(given.folder.rglob("runs.jsonl")):
        rows = read_rows(run)
        if rows and rows[-1]["step"] == given.steps:
            task = Path(json.loads((run.parent / "run.json").read_text())["settings"]["data"]).stem
            by_task.setdefault(task, []).extend(forecasts(run, f"rank {rank(run)}, {task}", given.steps))
    if not by_task:
        raise SystemExit(f"no finished run of {given.steps} steps below {given.folder}")
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


def rank(run: Path) -> Any:
    return json.loads((run.parent / "run.json").read_text())["settings"]["lora"]


if __name__ == "__main__":
    main()
