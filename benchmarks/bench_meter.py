"""The meter against two bare forward passes with logits over the same text: what measuring costs beyond running.

python benchmarks/bench_meter.py --quick      # under a minute, prints one JSON line last
python benchmarks/bench_meter.py              # writes results/bench_meter.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little text, two rounds, nothing written")
    arguments = parser.parse_args()
    from keeptune.cli import _prepare_process

    _prepare_process()
    import copy

    import torch

    from keeptune import load_documents, load_model, load_tokenizer, measure
    from keeptune.audit.meter import _batches, _pad
    from keeptune.replay.precision import autocast, training_dtype
    from keeptune.sources import encode
    from keeptune.versions import provenance

    base = load_model("smollm2")
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.model.norm.weight.mul_(1.01)
    documents = load_documents("pydoc").select(range(4 if arguments.quick else 16))
    rows = list(encode(documents, load_tokenizer("smollm2"), max_length=256, document_start=0))
    rows = rows[: 24 if arguments.quick else 128]
    device = base.device

    @torch.no_grad()
    def bare() -> None:
        for model in (base, tuned):
            for batch in _batches(rows):
                inputs, _ = _pad(batch)
                with autocast(device, training_dtype(model)):
                    model(input_ids=inputs[:, :-1].to(device), use_cache=False)

    seconds: dict[str, list[float]] = {"bare": [], "meter": []}
    for number in range(3 if arguments.quick else 6):
        for name, work in (("bare", bare), ("meter", lambda: measure(base, tuned, rows))):
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    ratios = [meter / bare for meter, bare in zip(seconds["meter"], seconds["bare"], strict=True)]
    result = {
        "benchmark": "bench_meter",
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "rounds": len(ratios),
        "meter_vs_two_forwards": round(statistics.median(ratios), 3),
        "seconds": seconds,
        **provenance(0),
    }
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "bench_meter.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
