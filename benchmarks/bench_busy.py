"""What a busy machine costs: training beside a process that wants every core too, by how OpenMP's threads wait.

    python benchmarks/bench_busy.py --quick      # a small model, under a minute, prints one JSON line last
    python benchmarks/bench_busy.py              # SmolLM2; writes results/bench_busy.json

A worker takes training steps with one thread a core, alone and beside a rival with as many threads; each worker and
rival is a process of its own, since OpenMP reads its settings when it is loaded. `default` is the worker as torch
starts it, `passive` the worker under `keeptune`'s command line (threads that wait sleep). The rival multiplies matrices
with torch as it comes. All cases are interleaved round by round; seconds a step are medians over a worker's steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from shared import finish

POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
ROWS, T = 8, 128
ALLOWED_BUSY, ALLOWED_QUIET = 2.2, 1.03
"""Bounds: busy ÷ quiet of the default, and quiet passive ÷ quiet default."""


def work(small: bool, steps: int) -> None:
    """Take training steps and print the seconds of each."""
    import torch

    torch.manual_seed(0)
    model = _model(small)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    rows_BT = torch.randint(3, 900, (ROWS, T))
    for step in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=rows_BT, labels=rows_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step:  # the first one makes the optimizer's state
            print(time.perf_counter() - start, flush=True)


def _model(small: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from keeptune.models.loading import load_model

    if not small:
        return load_model("smollm2").train()
    return LlamaForCausalLM(LlamaConfig(hidden_size=128, intermediate_size=384, num_hidden_layers=4, vocab_size=1024))


def rival() -> None:
    """Multiply matrices until killed."""
    import torch

    a = torch.randn(768, 768)
    print("ready", flush=True)
    while True:
        a = torch.tanh(a @ a)


def seconds(policy: str, busy: bool, small: bool, steps: int) -> float:
    """Median seconds of a step of a fresh worker."""
    own = [sys.executable, __file__]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    other = None
    try:
        if busy:
            other = subprocess.Popen([*own, "--role", "rival"], stdout=subprocess.PIPE, env=clean)
            if other.stdout is None or not other.stdout.readline():
                raise SystemExit("the rival did not start")
        command = [*own, "--role", "worker", "--steps", str(steps), *(["--quick"] if small else [])]
        told = subprocess.run(command, env=clean | POLICIES[policy], check=True, capture_output=True, text=True).stdout
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return statistics.median(float(line) for line in told.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--role", choices=["worker", "rival"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    if options.role == "worker":
        work(options.quick, options.steps)
    elif options.role == "rival":
        rival()
    else:
        compare(1 if options.quick else options.rounds, options.steps, options.quick)


def compare(rounds: int, steps: int, small: bool) -> None:
    """All cases, interleaved round by round."""
    cases = [(policy, busy) for policy in POLICIES for busy in (False, True)]
    times: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    for number in range(rounds):
        for policy, busy in cases if number % 2 == 0 else cases[::-1]:
            times[policy, busy].append(seconds(policy, busy, small, steps))
            print(f"{policy}, {_load(busy)}: {times[policy, busy][-1]:.3f} s a step", file=sys.stderr)
    finish("bench_busy", _result(times), quick=small)


def _load(busy: bool) -> str:
    return "busy" if busy else "quiet"


def _result(times: dict[tuple[str, bool], list[float]]) -> dict[str, Any]:
    def ratio(over: tuple[str, bool], under: tuple[str, bool]) -> dict[str, float]:
        found = [a / b for a, b in zip(times[over], times[under], strict=True)]
        return {"median": statistics.median(found), "low": min(found), "high": max(found)}

    return {
        "rows": [ROWS, T],
        "seconds_a_step": {
            f"{policy}, {'busy' if busy else 'quiet'}": found for (policy, busy), found in times.items()
        },
        "busy_over_quiet": {policy: ratio((policy, True), (policy, False)) for policy in POLICIES},
        "quiet_passive_over_default": ratio(("passive", False), ("default", False)),
        "bounds": {"busy_over_quiet": ALLOWED_BUSY, "quiet_passive_over_default": ALLOWED_QUIET},
    }


if __name__ == "__main__":
    main()
