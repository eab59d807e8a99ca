"""LLaMA-Factory's own run_exp: python tests/hosts/llama_factory.py WORK plain|full|lora|refused OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from llamafactory.train.tuner import run_exp

from keeptune import KeepConfig
from keeptune.integrations.callback import DriftReadings

work, mode, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
callbacks = []
if mode != "plain":
    weight = 1.0 if mode == "refused" else 0.0
    callbacks = [DriftReadings(KeepConfig(lambda_=weight, drift_every=4, drift_rows=8, replay_length=32))]
run_exp(
    {
        "model_name_or_path": str(work / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if mode == "lora" else "full",
        "dataset": "chats",
        "dataset_dir": str(work),
        "template": "chatml",
        "cutoff_len": 64,
        "output_dir": out,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 12,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_steps": 12,
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
    },
    callbacks=callbacks,
)
