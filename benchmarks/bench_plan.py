"""Does a plan foretell its run? Cases planned with `keeptune plan`, then run with the command that the plan gives.

python benchmarks/bench_plan.py                    # 20 small decoders of the lab, then SmolLM2; on one thread
python benchmarks/bench_plan.py --cases tuning     # other cases, to try a change on
python benchmarks/bench_plan.py --table            # the rows so far, as Markdown

Each case is a base, a task and a budget. The bases are decoders that lab/pretraining_rate pretrains on English, with
the seeds 1 and 2; the constants of `keeptune.plan.predict` were set on seed 0 and other texts. The planned run has an
order of the data that no run of its pilot had, and mostly more steps. Minutes are those of the processor, so that other
work on the machine changes no plan. Each finished case is a file in --work, and a second call goes on. The bounds below
were committed before the runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import RESULTS, finish

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "lab"))

# At least so many of 20 cases, or the same share of as many as there are.
BOUNDS = {"task loss inside its interval": 17, "KL inside its interval": 17, "narrow": 20, "budget kept": 16}
NARROW = 0.15
"""Half the width of the interval of the task loss, nats per token."""
STDLIB = sysconfig.get_paths()["stdlib"]
TUNING = ("asyncio", "email", "verilog", "spanish-first")
TASKS = ("spanish", "multiprocessing", "unittest", "tkinter", "importlib", "idlelib", "encodings")
BUDGETS = (0.01, 0.02, 0.05, 0.1)
RATES = ("0.0003", "0.001", "0.003", "0.01")


@dataclass(frozen=True)
class Case:
    """A plan to make."""

    name: str
    base: str
    """`smollm2`, or the name of a cell of lab/pretraining_rate."""
    task: str
    budget: float
    flags: dict[str, Any]
    minutes: float


def cases(which: str) -> list[Case]:
    """Small decoders, each base with another task and budget, or SmolLM2 with short rows."""
    if which == "smollm2":
        wanted = [("verilog", 0.02), ("pydoc", 0.05), ("verilog", 0.05), ("pydoc", 0.02)]
        flags = {"max_length": 64, "batch_size": 2}
        return [
            Case(f"smollm2-{place}-{task}", "smollm2", task, budget, flags, 12.0)
            for place, (task, budget) in enumerate(wanted)
        ]
    tasks, count = (TUNING, 8) if which == "tuning" else (TASKS, 20)
    found = []
    for place in range(count):
        rate, seed = RATES[place % 4], 0 if which == "tuning" else 1 + place // 4 % 2
        task, budget = tasks[place % len(tasks)], BUDGETS[(place + place // 8) % 4]
        if which == "tuning":
            budget = BUDGETS[(place + place // 4) % 4]
        base = f"standard-1e-3-pretrain_rate{rate}-seed{seed}"
        found.append(Case(f"{which}-{place:02d}-{task}", base, task, budget, {"max_length": 64}, 0.75))
    return found


def base_of(case: Case) -> str:
    """The base's folder. A decoder that is not in the cache is pretrained, which takes minutes."""
    if case.base == "smollm2":
        return case.base
    from common.grid import Grid
    from common.small.pretraining import pretrained

    return str(pretrained(Grid.read(ROOT / "lab" / "pretraining_rate", "cpu").cells[case.base]))


def data_of(case: Case) -> str:
    """Of Spanish, the constants were set on the first half, and the cases have the second."""
    from common.texts import source_of

    if case.task in ("verilog", "pydoc"):
        return case.task
    halves = {"spanish-first": "0[0-4]", "spanish": "0[5-9]"}
    if case.task in halves:
        return f"{source_of('spanish')}/{halves[case.task]}*.txt"
    return f"{STDLIB}/{case.task}/*.py"


def run_command(command: str, out: Path) -> None:
    """The plan's command, as a user gives it, to a folder of its own."""
    from keeptune import cli

    words = shlex.split(command)
    words[words.index("--out") + 1] = str(out)
    sys.argv = [*words, *(["--resume"] if (out / "run.json").is_file() else [])]
    with suppress(SystemExit):
        cli.main()
    if not (out / "model").is_dir():
        raise SystemExit(f"{command} did not end")


def row_of(case: Case, work: Path, minutes: float) -> dict[str, Any]:
    """Plan, run, and compare."""
    from keeptune.plan.run import plan
    from keeptune.plan.settings import PlanSettings

    folder = work / case.name
    settings = PlanSettings(
        model=base_of(case),
        data=data_of(case),
        budget=case.budget,
        out=str(folder / "plan"),
        minutes=minutes,
        **case.flags,
    )
    found = plan(settings)
    run_command(found["command"], folder / "run")
    last = json.loads((folder / "run" / "runs.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    certificate = json.loads((folder / "run" / "certificate.json").read_text(encoding="utf-8"))
    chosen, pilot = found["plan"], found["pilot"]
    kept_fields = ("rank", "rate", "steps", "lambda", "longest_run", "runs_of_that_length", "task_loss", "KL")
    outcome = {"task_loss": last["L_ft"], "KL": certificate["kl"], "verdict": certificate["verdict"]}
    shown = ("rank", "rate", "steps", "order", "start", "task_loss", "KL", "verdict", "lambda", "wall", "counts")
    return {
        "case": case.name,
        "base": case.base,
        "task": case.task,
        "budget": case.budget,
        "minutes": minutes,
        "base_task_loss": pilot["base_task_loss"],
        "plan": {name: chosen[name] for name in kept_fields},
        "outcome": outcome | {"lambda": certificate["lambda"], "seconds": last["seconds"]},
        "pilot": {name: pilot[name] for name in ("seconds", "stop", "limit", "pass_steps")},
        "runs": [{name: run[name] for name in shown} for run in pilot["runs"]],
        "notes": found["notes"],
        "commit": found["commit"],
    }


def judged(row: dict[str, Any]) -> dict[str, bool]:
    """What is counted of a case."""
    plan, outcome = row["plan"], row["outcome"]
    (_, low, high), (_, kl_low, kl_high) = plan["task_loss"], plan["KL"]
    return {
        "task loss inside its interval": low <= outcome["task_loss"] <= high,
        "KL inside its interval": kl_low <= outcome["KL"]["value"] <= kl_high,
        "narrow": (high - low) / 2 <= NARROW,
        "budget kept": outcome["verdict"] == "kept",
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each count, its bound for as many cases, and whether it is met."""
    counts = {name: sum(judged(row)[name] for row in rows) for name in BOUNDS}
    return {
        name: {
            "count": count,
            "of": len(rows),
            "bound": f"{BOUNDS[name]} of 20",
            "met": count / len(rows) >= BOUNDS[name] / 20,
        }
        for name, count in counts.items()
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The cases as Markdown."""
    head = (
        "| case | budget | pilot | planned | task loss: base, foretold, came | KL / budget: foretold, came | budget |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        plan, outcome, budget = row["plan"], row["outcome"], row["budget"]
        (value, low, high), (kl, kl_low, kl_high) = plan["task_loss"], (end / budget for end in plan["KL"])
        found = judged(row)
        loss, inside = (f"{outcome['task_loss']:.3f}", f"{outcome['KL']['value'] / budget:.2f}")
        loss = loss if found["task loss inside its interval"] else f"**{loss}**"
        inside = inside if found["KL inside its interval"] else f"**{inside}**"
        lines.append(
            f"| {row['case']} | {budget:g} | {len(row['runs'])} runs, {row['pilot']['seconds'] / 60:.1f} of "
            f"{row['minutes']:g} min | rank {plan['rank']}, rate {plan['rate']:g}, {plan['steps']} steps "
            f"({plan['steps'] / plan['longest_run']:.1f} × the longest) | {row['base_task_loss']:.3f}, {value:.3f} "
            f"[{low:.3f}, {high:.3f}], {loss} | {kl:.2f} [{kl_low:.2f}, {kl_high:.2f}], {inside} | "
            f"{outcome['verdict']} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", choices=["tiny", "smollm2", "tuning"], help="by default tiny, then smollm2")
    parser.add_argument("--only", help="one case by name; writes no result")
    parser.add_argument("--minutes", type=float, help="of each plan, in place of the case's own")
    parser.add_argument("--work", type=Path, default=Path("runs") / "bench_plan", help="where runs are kept")
    parser.add_argument("--table", action="store_true", help="print the rows of the committed result and run nothing")
    arguments = parser.parse_args()
    name = "bench_plan_tuning" if arguments.cases == "tuning" else "bench_plan"
    if arguments.table:
        kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        print("\n".join(table(kept["rows"])))
        return
    time.monotonic = time.process_time  # type: ignore[assignment]
    import torch

    from keeptune.log import log_to_terminal
    from keeptune.storage import write_json

    torch.set_num_threads(1)
    log_to_terminal()
    rows = []
    for which in [arguments.cases] if arguments.cases else ["tiny", "smollm2"]:
        for case in cases(which):
            file = arguments.work / f"{case.name}.json"
            if not file.is_file() and arguments.only in (None, case.name):
                write_json(file, row_of(case, arguments.work, arguments.minutes or case.minutes))
            if file.is_file():
                rows.append(json.loads(file.read_text(encoding="utf-8")))
                finish(name, {"bounds": summary(rows), "rows": rows}, quick=arguments.only is not None)


if __name__ == "__main__":
    main()
