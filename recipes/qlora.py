"""QLoRA and keeping: an adapter on a base in 4 bits, for one GPU of 24 GB.

python recipes/qlora.py --model Qwen/Qwen3-8B --data trl-lib/Capybara --steps 500
python recipes/qlora.py --steps 2 --replay-tokens 4096       # SmolLM2-135M on a CPU: slow, to see it run

The same from the command line: keeptune tune MODEL DATA --out RUN --load-in-4bit --lora 16. Needs bitsandbytes
(pip install "keeptune[quantized]").

What is held on to are the predictions of the quantized base. The default teacher reads them from disk, so no second
model is in memory. Estimate for 8 B parameters: 4 GB of 4-bit weights, 2 GB of embedding and head in bfloat16 (150 k
tokens), 0.3 GB of adapter, gradients and optimizer, 4 to 8 GB of activations. This script was run on a CPU with a tiny
Llama (a test runs it), not on a GPU.

The adapter's folder says how its base was quantized (base_quantization.json); keeptune audit loads that base again and
does not merge the adapter, because merging would round it.
"""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig
from trl import SFTConfig

from keeptune import KeepConfig, KeepSFTTrainer, load_documents, load_model, load_tokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="smollm2")
parser.add_argument("--data", default="verilog")
parser.add_argument("--out", default="runs/qlora")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--replay-tokens", type=int, default=16_384)
arguments = parser.parse_args()

on_gpu = torch.accelerator.is_available()
trainer = KeepSFTTrainer(
    model=load_model(arguments.model, load_in="4bit", dtype=torch.bfloat16 if on_gpu else torch.float32),
    processing_class=load_tokenizer(arguments.model),
    train_dataset=load_documents(arguments.data),
    args=SFTConfig(
        output_dir=arguments.out,
        max_steps=arguments.steps,
        max_length=1024 if on_gpu else 128,
        learning_rate=2e-4,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8 if on_gpu else 1,
        gradient_checkpointing=True,
        bf16=on_gpu,
        use_cpu=not on_gpu,
    ),
    peft_config=LoraConfig(r=16, lora_alpha=16, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM"),
    keep=KeepConfig(lambda_=1.0, replay_tokens=arguments.replay_tokens, replay_rows=1),
)
trainer.train()
trainer.save_model(f"{arguments.out}/model")
