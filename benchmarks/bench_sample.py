"""The sampler against `generate`: tokens a second from the same bfloat16 model at the same batch, interleaved.

    python benchmarks/bench_sample.py --quick        # under a minute, prints one JSON line last
    python benchmarks/bench_sample.py                # writes results/bench_sample.json

Each method runs in a process of its own kind: `generate` under the allocator's defaults, as a user's script has it,
and again with the allocator settings that keeptune's command line makes, so that both effects can be seen apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
METHODS = ("generate", "generate, tuned allocator", "keeptune")


def time_once(method: str, model_source: str, rows: int, length: int) -> float:
    """Tokens a second of one method, in this process."""
    from keeptune.cli import _prepare_process

    if method != "generate":
        _prepare_process()
    import torch

    from keeptune.replay.sampler import TorchSampler
    from keeptune.sources import load_model

    model = load_model(model_source, dtype=torch.bfloat16)

    def generate(tokens: int) -> None:
        ids = torch.zeros(rows, 1, dtype=torch.int64)
        model.generate(
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

    sampler = TorchSampler(model, rows=rows) if method == "keeptune" else None

    def sample(tokens: int) -> None:
        sampler.sample(rows, tokens, start=0, seed=0)

    work = sample if method == "keeptune" else generate
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
    arguments = parser.parse_args()
    length = arguments.length or (24 if arguments.quick else 128)
    if arguments.method:
        print(json.dumps(time_once(arguments.method, arguments.model, arguments.rows, length)))
        return
    rates: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(1 if arguments.quick else 5):
        for method in METHODS:
            command = [sys.executable, __file__, "--method", method, "--model", arguments.model]
            command += ["--rows", str(arguments.rows), "--length", str(length)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rates[method].append(float(done.stdout.splitlines()[-1]))
    from keeptune.versions import provenance

    ours = rates["keeptune"]
    against_default, against_tuned = ([o / g for o, g in zip(ours, rates[m], strict=True)] for m in METHODS[:2])
    result = {
        "benchmark": "bench_sample",
        "rows": arguments.rows,
        "length": length,
        "rounds": len(ours),
        "tokens_per_second": rates,
        "speedup_vs_generate": round(statistics.median(against_default), 3),
        "speedup_vs_generate_range": [round(min(against_default), 3), round(max(against_default), 3)],
        "speedup_vs_generate_tuned_allocator": round(statistics.median(against_tuned), 3),
        **provenance(0),
    }
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "bench_sample.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
