"""The meter against two bare forward passes with logits over the same text: what measuring costs beyond running.

python benchmarks/bench_meter.py --quick      # under a minute, prints one JSON line last
python benchmarks/bench_meter.py              # writes results/bench_meter.json, on a GPU bench_meter_cuda.json

The bare passes run the stock model under bf16 autocast, batch for batch what the meter runs, and look at no logit.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

from shared import finish, use_device


def works(device: str, *, quick: bool, source: str = "smollm2") -> tuple[int, dict[str, Callable[[], Any]]]:
    """The number of tokens, and the two things that are timed on them."""
    import torch

    from keeptune import load_documents, load_model, load_tokenizer, measure
    from keeptune.audit.meter import BATCH_TOKENS, batched, pad_rows
    from keeptune.data.encode import encode
    from keeptune.models.modeling import autocast, training_dtype

    base = load_model(source).to(device)
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.model.norm.weight.mul_(1.01)
    documents = load_documents("pydoc").select(range(4 if quick else 16))
    rows = list(encode(documents, load_tokenizer(source), max_length=256, document_start=0, append_eos=False))
    rows = rows[: 16 if quick else 128]

    @torch.no_grad()
    def bare() -> None:
        for model in (base, tuned):
            for batch in batched(rows, lambda row: len(row["input_ids"]), BATCH_TOKENS):
                inputs, _ = pad_rows(batch)
                with autocast(base.device, training_dtype(model)):
                    model(input_ids=inputs[:, :-1].to(device), use_cache=False)
        if device == "cuda":
            torch.cuda.synchronize()

    tokens = sum(len(row["input_ids"]) for row in rows)
    return tokens, {"bare": bare, "meter": lambda: measure(base, tuned, rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little text, two rounds, nothing written")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the GPU where there is one")
    arguments = parser.parse_args()
    device = use_device(arguments.device)
    from keeptune.cli import _prepare_process

    _prepare_process()
    tokens, timed = works(device, quick=arguments.quick)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(3 if arguments.quick else 8):
        for name, work in timed.items():
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    ratios = [meter / bare for meter, bare in zip(seconds["meter"], seconds["bare"], strict=True)]
    result = {
        "tokens": tokens,
        "rounds": len(ratios),
        "meter_vs_two_forwards": round(statistics.median(ratios), 3),
        "meter_vs_two_forwards_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds": seconds,
    }
    finish("bench_meter", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
