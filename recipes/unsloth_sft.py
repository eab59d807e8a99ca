"""Unsloth, and keeping: import unsloth first, then train with KeepSFTTrainer in place of trl's SFTTrainer.

python recipes/unsloth_sft.py --model unsloth/Qwen3-0.6B --data trl-lib/Capybara --steps 500
python recipes/unsloth_sft.py --model FOLDER --data TEXTS.jsonl --steps 6        # a tiny model on a CPU
"""

from __future__ import annotations

import argparse

import unsloth  # noqa: F401 - it replaces trl's trainers, and keeptune's must be built on its own
from trl import SFTConfig
from unsloth import FastLanguageModel

from keeptune import KeepConfig, KeepSFTTrainer, load_documents

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="unsloth/Qwen3-0.6B")
parser.add_argument("--data", default="trl-lib/Capybara")
parser.add_argument("--out", default="runs/unsloth")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--lambda", type=float, default=1.0, dest="lambda_")
parser.add_argument("--replay-tokens", type=int, default=16_384)
arguments = parser.parse_args()

# Replay reads the base as the model with its adapter off, so an adapter of Unsloth's costs no second model. Load the
# weights in 16 bits: a base in 4 bits keeps what the 4-bit model knew, which is not quite what the original did.
model, tokenizer = FastLanguageModel.from_pretrained(arguments.model, max_seq_length=1024, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(model, r=16, lora_alpha=16, use_rslora=True)

trainer = KeepSFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=load_documents(arguments.data),
    args=SFTConfig(
        output_dir=arguments.out,
        max_steps=arguments.steps,
        max_length=1024,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        logging_steps=1,
        report_to="none",
    ),
    keep=KeepConfig(lambda_=arguments.lambda_, replay_tokens=arguments.replay_tokens, drift_every=20),
)
trainer.train()
trainer.save_model(f"{arguments.out}/model")
