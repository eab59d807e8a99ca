"""A tiny base with models that were made of it: all weights moved, a LoRA with random factors."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.helpers.models import make_model, make_tokenizer


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def moved(model: PreTrainedModel, scale: float = 0.02, seed: int = 1) -> PreTrainedModel:
    """The model with noise on every weight."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn_like(parameter))
    return model


def learned(model: PreTrainedModel, texts: list[str], steps: int = 40, rate: float = 3e-3) -> PreTrainedModel:
    """The model after a little training on texts."""
    tokenizer = make_tokenizer()
    rows = torch.tensor([[0, *tokenizer(text)["input_ids"]][:48] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    return model


def save_tuned(folder: Path, scale: float = 0.02) -> Path:
    return save(moved(make_model(width=16), scale), folder)


def save_base(folder: Path) -> Path:
    return save(make_model(width=16), folder)


@torch.no_grad()
def save_lora(base: Path, folder: Path, rank: int = 2, scale: float = 0.15, **more: object) -> Path:
    """A LoRA on the base of `save_base`, with factors as if it had been trained."""
    model = make_model(width=16)
    model.name_or_path = model.config._name_or_path = str(base)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "down_proj"], **more)  # type: ignore[arg-type]
    adapted = get_peft_model(model, config)
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.copy_(scale * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
