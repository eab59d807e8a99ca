"""Every kind of trainer, tiny: how to make the parent and the keeping one alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from transformers import LlamaForCausalLM, Trainer, TrainingArguments, default_data_collator
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from keeptune import KeepConfig, KeepDPOTrainer, KeepGRPOTrainer, KeepMixin, KeepSFTTrainer, KeepTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import task_rows

if trl.__version__.startswith("0."):
    from trl.experimental.kto import KTOConfig, KTOTrainer
else:
    from trl import KTOConfig, KTOTrainer


class KeepKTOTrainer(KeepMixin, KTOTrainer):
    """As the documentation tells users to write it."""


class KeepRLOOTrainer(KeepMixin, RLOOTrainer):
    """As the documentation tells users to write it."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of trainer."""

    parent: type
    ours: type
    config: type
    extra: Callable[[], dict[str, Any]]
    """Arguments beside model and args."""
    settings: dict[str, Any]
    """Of its config."""

    def make(self, folder: Path, keep: KeepConfig | None, model: Any = None, **settings: Any) -> Any:
        """The keeping trainer, or the parent where `keep` is None."""
        args = self.config(**{**SHARED, **self.settings, "output_dir": str(folder), **settings})
        given = {"model": model or model_on_disk(folder.parent / "model"), "args": args, **self.extra()}
        return self.parent(**given) if keep is None else self.ours(**given, keep=keep)


def model_on_disk(folder: Path) -> LlamaForCausalLM:
    """The tiny model with a name that it can be loaded by again: trainers load their reference model so."""
    if not folder.exists():
        make_model().save_pretrained(folder)
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder)
    return model


SHARED: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "adam_epsilon": 1e-4,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "report_to": "none",
}
WORDS = [f"number {number} and the word after it" for number in range(24)]
GENERATION = {"num_generations": 2, "max_completion_length": 6, "temperature": 1.0}


def variety(completions: list[str], **kwargs: Any) -> list[float]:
    """A reward: how many different characters a completion has."""
    return [float(len(set(completion))) for completion in completions]


def preferences() -> dict[str, Any]:
    rows = [{"prompt": word, "chosen": " is good", "rejected": " is bad, it is said"} for word in WORDS]
    return {"train_dataset": Dataset.from_list(rows), "processing_class": make_tokenizer()}


def judged() -> dict[str, Any]:
    rows = [{"prompt": word, "completion": " is told", "label": number % 2 == 0} for number, word in enumerate(WORDS)]
    return {"train_dataset": Dataset.from_list(rows), "processing_class": make_tokenizer()}


def prompts() -> dict[str, Any]:
    return {
        "train_dataset": Dataset.from_list([{"prompt": word} for word in WORDS]),
        "processing_class": make_tokenizer(),
        "reward_funcs": variety,
    }


def rows() -> dict[str, Any]:
    return {"train_dataset": task_rows(), "processing_class": make_tokenizer()}


def collated_rows() -> dict[str, Any]:
    return {**rows(), "data_collator": default_data_collator}


KINDS = {
    "Trainer": Kind(parent=Trainer, ours=KeepTrainer, config=TrainingArguments, extra=collated_rows, settings={}),
    "SFT": Kind(parent=SFTTrainer, ours=KeepSFTTrainer, config=SFTConfig, extra=rows, settings={}),
    "DPO": Kind(parent=DPOTrainer, ours=KeepDPOTrainer, config=DPOConfig, extra=preferences, settings={}),
    "GRPO": Kind(parent=GRPOTrainer, ours=KeepGRPOTrainer, config=GRPOConfig, extra=prompts, settings=GENERATION),
    "KTO": Kind(parent=KTOTrainer, ours=KeepKTOTrainer, config=KTOConfig, extra=judged, settings={}),
    "RLOO": Kind(parent=RLOOTrainer, ours=KeepRLOOTrainer, config=RLOOConfig, extra=prompts, settings=GENERATION),
}
