"""Does a forgetting budget hold, and does steering λ cost task loss against the best fixed λ of the same forgetting?

python benchmarks/bench_budget.py --model tiny --quick       # two minutes, prints one JSON line last, writes nothing
python benchmarks/bench_budget.py --model tiny               # writes results/bench_budget_tiny.json
python benchmarks/bench_budget.py --model smollm2 --jobs 2   # about 40 minutes on two cores

Runs of `keeptune tune` on one pool, one thread each: five with a fixed λ, three with a budget. KL is read on the same
rows in all of them, which neither training nor λ saw. At the KL of a budget's run the fixed λ's task loss is
interpolated, linearly in log KL. Each run's folder is kept in --work: a second call goes on and skips what is done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared import finish

ROOT = Path(__file__).parents[1]
METER_ROWS = 16
CERTIFICATE_ROWS = 8 * METER_ROWS
BASE_STEPS = 1200


@dataclass(frozen=True)
class Size:
    """What is tuned, on what, for how long."""

    data: str
    flags: tuple[str, ...]
    length: int
    steps: int
    rows: int
    lambdas: tuple[float, ...]
    budgets: tuple[float, ...] = (0.005, 0.02, 0.05)


STDLIB = sysconfig.get_paths()["stdlib"]
SIZES = {
    "tiny": Size(
        data=f"{STDLIB}/asyncio/*.py",
        flags=("--learning-rate", "5e-4", "--held-out-rows", "64"),
        length=64, steps=160, rows=4, lambdas=(1.0, 3.0, 10.0, 30.0, 100.0),
    ),
    "smollm2": Size(
        # The steps alone shake KL up to .02 at a rate of 3e-4, whatever λ is: small budgets need a smaller one.
        data="verilog", flags=("--lora", "16", "--learning-rate", "1e-4", "--held-out-rows", "32"), length=128,
        steps=60, rows=4, lambdas=(1.0, 3.0, 10.0, 30.0, 100.0),
    ),
}  # fmt: skip


def tiny_base(folder: Path) -> Path:
    """The tests' tiny model, twice as wide, after a minute on Python's help pages: it has something to forget."""
    if (folder / "model.safetensors").is_file():
        return folder
    sys.path.insert(0, str(ROOT))
    import torch

    from keeptune.data.documents import load_documents
    from keeptune.data.encode import encode
    from keeptune.storage import atomic_folder
    from keeptune.train.loop import task_sum
    from tests.conftest import make_model, make_tokenizer

    torch.set_num_threads(1)
    model, tokenizer = make_model(width=64), make_tokenizer()
    rows = encode(load_documents("pydoc"), tokenizer, max_length=129, document_start=0, append_eos=False)
    token_RT = torch.tensor([row for row in rows["input_ids"] if len(row) == 129])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for step in range(BASE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - step / BASE_STEPS)
        batch_BT = token_RT[torch.randint(len(token_RT), (16,), generator=generator)]
        loss = task_sum(model, {"input_ids": batch_BT, "labels": batch_BT}) / (16 * 128)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"tiny base: {loss.item():.3f} nats per byte", file=sys.stderr)
    with atomic_folder(folder) as temporary:
        model.eval().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def keeptune(*arguments: str | Path | float) -> None:
    """A verb, on one thread."""
    command = [sys.executable, "-m", "keeptune", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


def prepare(model: str, size: Size, work: Path) -> Path | str:
    """The base and its pool: rows for one round of training, for the meter and for the certificate."""
    base = tiny_base(work / "base") if model == "tiny" else model
    # A certificate takes at most a quarter of the rows that the meter leaves.
    rows = METER_ROWS + max(size.steps * size.rows + CERTIFICATE_ROWS, 4 * CERTIFICATE_ROWS)
    pool = ("--tokens", rows * size.length, "--length", size.length, "--seed", 1)
    keeptune("replay", base, "--out", work / "pool", *pool)
    return base


def names(size: Size) -> dict[str, tuple[str, ...]]:
    """Each run and its own flags; fixed λ and budgets take turns, so that a stopped benchmark has some of both."""
    fixed = [
        # The meter reads at the start and the end, on the rows that the certificates are about.
        (f"lambda-{value:g}", ("--lambda", f"{value:g}", "--drift-every", "0", "--drift-rows", str(CERTIFICATE_ROWS)))
        for value in size.lambdas
    ]
    steered = [
        (f"budget-{value:g}", ("--budget", f"{value:g}", "--drift-rows", str(METER_ROWS))) for value in size.budgets
    ]
    order = [fixed[0], fixed[-1]]
    for pair in zip(steered, fixed[1:-1], strict=False):
        order += pair
    order += [run for run in (*steered, *fixed) if run not in order]
    return dict(order)


def train(base: Path | str, size: Size, work: Path, jobs: int, seed: int) -> None:
    """All runs that are not done, `jobs` at a time."""

    def one(run: tuple[str, tuple[str, ...]]) -> None:
        name, flags = run
        if (work / name / "model").is_dir():
            return
        length = ("--max-length", size.length, "--batch-size", size.rows, "--replay-rows", size.rows)
        where = ("--out", work / name, "--replay", work / "pool", "--checkpoint-every", 20, "--resume")
        keeptune("tune", base, size.data, "--steps", size.steps, "--seed", seed, *length, *size.flags, *flags, *where)

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(one, names(size).items()))


def result_of(work: Path, name: str) -> dict[str, Any]:
    """What a run ended at."""
    readings = [json.loads(line) for line in (work / name / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = readings[0], readings[-1]
    result = {
        "task_loss": last["L_ft"],
        "task_loss_of_base": first["L_ft"],
        "KL": last["KL"],
        "lambda": last["lambda"],
        "seconds": last["seconds"],
    }
    if name.startswith("budget"):
        certificate = json.loads((work / name / "certificate.json").read_text(encoding="utf-8"))
        state = [entry for entry in readings if entry["step"]]
        result |= {
            "budget": certificate["budget"],
            "KL": certificate["kl"]["value"],
            "certificate": certificate,
            "lambda_at_readings": {entry["step"]: entry["lambda"] for entry in state},
            "KL_at_readings": {entry["step"]: entry["KL"] for entry in state},
        }
    return result


def best_fixed(fixed: list[dict[str, Any]], kl: float) -> float | None:
    """Task loss of a fixed λ that ends at `kl`: linear in log KL, above the sweep that of its largest; None where no λ
    keeps as much."""
    points = sorted((math.log(run["KL"]), run["task_loss"]) for run in fixed)
    for (left, low), (right, high) in pairwise(points):
        if left <= math.log(kl) <= right:
            return low + (high - low) * (math.log(kl) - left) / (right - left)
    return points[-1][1] if math.log(kl) > points[-1][0] else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SIZES), default="tiny")
    parser.add_argument("--quick", action="store_true", help="the tiny model, 40 steps, nothing written")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--work", type=Path, help="where runs are kept; by default runs/bench_budget_MODEL")
    parser.add_argument("--data", help="another task than the one that is reported")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    model = "tiny" if arguments.quick else arguments.model
    size = SIZES[model]
    changes = {"data": arguments.data or size.data, "steps": arguments.steps or (40 if arguments.quick else size.steps)}
    size = Size(**{**vars(size), **changes})
    work = arguments.work or Path("runs") / f"bench_budget_{model}{'_quick' if arguments.quick else ''}"
    base = prepare(model, size, work)
    train(base, size, work, arguments.jobs, arguments.seed)
    runs = {name: result_of(work, name) for name in names(size)}
    fixed = [run for name, run in runs.items() if name.startswith("lambda")]
    for run in runs.values():
        if "budget" in run:
            run["KL_over_budget"] = round(run["KL"] / run["budget"], 3)
            best = best_fixed(fixed, run["KL"])
            run["task_loss_over_fixed"] = None if best is None else round(run["task_loss"] - best, 4)
    said = vars(size) | {"data": size.data.replace(STDLIB, "the standard library")}
    result = {"model": model, **said, "seed_of_runs": arguments.seed, "runs": runs}
    finish(f"bench_budget_{model}", result, quick=arguments.quick)
    for name, run in runs.items():
        more = (
            f"  KL/b {run['KL_over_budget']:.2f}  over fixed {run['task_loss_over_fixed']}" if "budget" in run else ""
        )
        print(
            f"{name:14s} KL {run['KL']:.5f}  task {run['task_loss']:.4f}  λ {run['lambda']:.3f}{more}", file=sys.stderr
        )


if __name__ == "__main__":
    main()
