"""What a teacher of the K likeliest words cannot see: its KL and its gradient against the exact ones, and its size.

    python benchmarks/bench_topk.py --quick      # prints one JSON line last
    python benchmarks/bench_topk.py              # writes results/bench_topk.json

SmolLM2 is tuned plainly on Verilog for a few steps; at each stop the divergence from the base on the base's own text
is taken with every K, from the log-probabilities as a pool keeps them (fp16), and exactly.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from shared import finish, use_device

WORDS = (8, 16, 32, 64, 128, 256)
LENGTH = 128


def readings(model: Any, pools: dict[Any, Any], base_head: Any, rows: int, step: int) -> list[dict[str, Any]]:
    """KL and gradient at the hidden states for every K, against the exact ones."""
    import torch

    from keeptune.models.modeling import head_of, hidden_states
    from keeptune.replay.teachers import CachedHidden, CachedTopK

    found: dict[Any, tuple[float, Any]] = {}
    head = head_of(model).detached()
    for words, pool in pools.items():
        batch = pool.batch(torch.arange(rows)).to(model.device)
        with torch.no_grad():
            hidden_ND = hidden_states(model, batch.inputs_BP).flatten(0, 1)
        hidden_ND.requires_grad_()
        teacher = CachedHidden(base_head) if words == "hidden" else CachedTopK()
        loss = divergence(hidden_ND, head, teacher.target(model, batch))
        found[words] = (loss.item() / len(hidden_ND), torch.autograd.grad(loss, hidden_ND)[0])
    kl, gradient = found.pop("hidden")
    return [
        {
            "steps": step,
            "words": words,
            "kl": value,
            "exact_kl": kl,
            "kl_ratio": round(value / kl, 4),
            "gradient_cosine": round(float(torch.cosine_similarity(of_words.flatten(), gradient.flatten(), dim=0)), 5),
            "gradient_length_ratio": round(float(of_words.norm() / gradient.norm()), 4),
        }
        for words, (value, of_words) in found.items()
    ]


def divergence(hidden_ND: Any, head: Any, target: Any) -> Any:
    from keeptune.objective import fused_divergence

    return fused_divergence(hidden_ND, head, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little text, one stop, nothing written")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    arguments = parser.parse_args()
    device = use_device(arguments.device)
    rows, stops = (8, (4,)) if arguments.quick else (32, (4, 16, 48))
    import torch

    from keeptune import KeepConfig, keep_tuning, load_documents, load_model, load_tokenizer, sample_pool
    from keeptune.cli import _prepare_process
    from keeptune.data.encode import encode
    from keeptune.models.modeling import select_attention
    from keeptune.replay.teachers import frozen_head

    _prepare_process()
    model, tokenizer = load_model("smollm2").to(device), load_tokenizer("smollm2")
    select_attention(model, LENGTH)
    base_head = frozen_head(model, torch.float32).detached()
    task = encode(load_documents("verilog"), tokenizer, max_length=LENGTH, document_start=0, append_eos=False)
    task = task.filter(lambda row: len(row["input_ids"]) == LENGTH).shuffle(seed=0)
    batches = ({name: torch.tensor(batch[name]) for name in ("input_ids", "labels")} for batch in task.iter(8))
    result: dict[str, Any] = {"length": LENGTH, "rows": rows, "width": base_head.weight_VD.shape[1], "readings": []}
    with tempfile.TemporaryDirectory() as folder:
        shared: dict[str, Any] = {"tokens": rows * LENGTH, "length": LENGTH}
        pools: dict[Any, Any] = {"hidden": sample_pool(model, tokenizer, f"{folder}/hidden", **shared)}
        for words in WORDS:
            kept = {"predictions": "topk", "top_k": words}
            pools[words] = sample_pool(model, tokenizer, f"{folder}/{words}", **shared, **kept)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        keep = KeepConfig(lambda_=0.0, drift_rows=1)
        steps = keep_tuning(
            model, batches, pools["hidden"], optimizer=optimizer, steps=max(stops), keep=keep, dtype=torch.bfloat16
        )
        for reading in steps:
            if reading.step in stops:
                result["readings"] += readings(model, pools, base_head, rows, reading.step)
    finish("bench_topk", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
