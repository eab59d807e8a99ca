"""LoRA fine-tuning with TRL, and keeping: an SFT script with one more argument.

python recipes/lora_sft.py                                              # SmolLM2-135M on Verilog, CPU-sized
python recipes/lora_sft.py --model Qwen/Qwen3-0.6B --data trl-lib/Capybara --steps 500
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
parser.add_argument("--out", default="runs/lora")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--replay-tokens", type=int, default=16_384)
arguments = parser.parse_args()

trainer = KeepSFTTrainer(
    model=load_model(arguments.model),
    processing_class=load_tokenizer(arguments.model),
    train_dataset=load_documents(arguments.data),
    args=SFTConfig(
        output_dir=arguments.out,
        max_steps=arguments.steps,
        max_length=128,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        gradient_checkpointing=False,
        use_cpu=not torch.accelerator.is_available(),
    ),
    peft_config=LoraConfig(r=16, lora_alpha=16, use_rslora=True, target_modules="all-linear"),
    keep=KeepConfig(lambda_=1.0, replay_tokens=arguments.replay_tokens),
)
trainer.train()
trainer.save_model(f"{arguments.out}/model")
