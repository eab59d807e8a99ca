"""The sampler against `generate`: tokens a second from the same bfloat16 model at the same batch, interleaved.

    python benchmarks/bench_sample.py --quick        # under a minute, prints one JSON line last
    python benchmarks/bench_sample.py                # writes results/bench_sample.json, on a GPU bench_sample_cuda.json

Each method runs in a process of its own: `generate` under the allocator's defaults, as a user's script has it, and on
a CPU again with the allocator settings that keeptune's command line makes, so that both effects can be seen apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from shared import finish, use_device

BY_ROWS = {"cpu": (16, 32, 64, 128, 256), "cuda": (64, 256, 1024, 2048)}
GENERATE, TUNED, KEEPTUNE = METHODS = ("generate", "generate, tuned allocator", "keeptune")


def time_once(method: str, model_source: str, rows: int, length: int) -> float:
    """Tokens a second of one method, in this process."""
    from keeptune.cli import _prepare_process

    if method != GENERATE:
        _prepare_process()
    import torch

    from keeptune.models.loading import load_model
    from keeptune.replay.engines.torch import TorchEngine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = load_model(model_source, dtype=torch.bfloat16).to(device)

    def generate(tokens: int) -> None:
        ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        written.cpu()  # the sampler's rows are on the host too

    sampler = TorchEngine(model, rows=rows) if method == KEEPTUNE else None

    def sample(tokens: int) -> None:
        sampler.sample(rows, tokens, [0], seed=0)

    work = sample if method == KEEPTUNE else generate
    work(4)
    start = time.perf_counter()
    work(length)
    return rows * length / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of short rows, nothing written")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--method", choices=METHODS, help="time one method in this process and print its rate")
    parser.add_argument("--length", type=int)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    arguments = parser.parse_args()
    device = use_device(arguments.device)
    length = arguments.length or (24 if arguments.quick else 128)
    if arguments.method:
        print(json.dumps(time_once(arguments.method, arguments.model, arguments.rows, length)))
        return

    def rate(method: str, rows: int) -> float:
        command = [sys.executable, __file__, "--method", method, "--model", arguments.model, "--device", device]
        command += ["--rows", str(rows), "--length", str(length)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.splitlines()[-1])

    rates: dict[str, list[float]] = {method: [] for method in METHODS if device == "cpu" or method != TUNED}
    for _ in range(1 if arguments.quick else 7):
        for method, measured in rates.items():
            measured.append(rate(method, arguments.rows))
    ratios = {
        method: [ours / theirs for ours, theirs in zip(rates[KEEPTUNE], measured, strict=True)]
        for method, measured in rates.items()
        if method != KEEPTUNE
    }
    result: dict[str, Any] = {
        "rows": arguments.rows,
        "length": length,
        "rounds": len(rates[KEEPTUNE]),
        "tokens_per_second": rates,
        "speedup_vs_generate": round(statistics.median(ratios[GENERATE]), 3),
        "speedup_vs_generate_range": [round(min(ratios[GENERATE]), 3), round(max(ratios[GENERATE]), 3)],
    }
    if TUNED in ratios:
        result["speedup_vs_generate_tuned_allocator"] = round(statistics.median(ratios[TUNED]), 3)
    if not arguments.quick:
        result["keeptune_tokens_per_second_by_rows"] = {rows: rate(KEEPTUNE, rows) for rows in BY_ROWS[device]}
    finish("bench_sample" if arguments.rows != 128 else "bench_sample_128", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
