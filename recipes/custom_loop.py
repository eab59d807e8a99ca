"""Your own training loop, and keeping: batches in, one reading a step out, everything else stays yours.

python recipes/custom_loop.py                       # SmolLM2-135M on Verilog, CPU-sized
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from keeptune import KeepConfig, keep_tuning, load_documents, load_model, load_tokenizer, sample_pool, save_model

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="smollm2")
parser.add_argument("--data", default="verilog")
parser.add_argument("--out", default="runs/custom")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--replay-tokens", type=int, default=16_384)
arguments = parser.parse_args()

model, tokenizer = load_model(arguments.model), load_tokenizer(arguments.model)
pool = sample_pool(model, tokenizer, f"{arguments.out}/pool", tokens=arguments.replay_tokens, length=128)
ids = torch.tensor(tokenizer("\n\n".join(load_documents(arguments.data)["text"]))["input_ids"])


def batches() -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        starts = torch.randint(0, len(ids) - 128, (8,), generator=generator)
        rows = torch.stack([ids[start : start + 128] for start in starts])
        yield {"input_ids": rows, "labels": rows}


optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
readings = keep_tuning(
    model,
    batches(),
    pool,
    optimizer=optimizer,
    steps=arguments.steps,
    keep=KeepConfig(lambda_=1.0, replay_rows=4),
    dtype=torch.bfloat16,
)
for reading in readings:
    print(f"step {reading.step:4d}  task {reading.task_loss:.3f}  replay KL {reading.replay_loss:.4f}")
save_model(model, tokenizer, f"{arguments.out}/model")
