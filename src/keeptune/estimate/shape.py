"""The numbers of a model that memory and time follow from, by its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from keeptune.errors import ConfigError
from keeptune.models.guarded import quiet, readable
from keeptune.models.loading import resolve_model


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a model that memory and time follow from."""

    parameters: int
    trained: int
    layers: int
    layer: int
    """Parameters of one layer."""
    width: int
    vocabulary: int
    head_trained: bool
    cache: int
    """Numbers that a decoder keeps of each position."""


def read_config(source: str) -> Any:
    """The configuration of a model by name; its weights are not read."""
    with quiet(), readable(source):
        return AutoConfig.from_pretrained(resolve_model(source), trust_remote_code=False)


def shape_of(config: Any, lora: int | None = None) -> Shape:
    """The shape of a model, all of it trained or a LoRA of this rank on every linear layer but the head."""
    text = config.get_text_config()
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            "the model is quantized, and estimates are of plain weights", "estimate the unquantized model"
        )
    with torch.device("meta"), quiet():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    total = sum(p.numel() for p in model.parameters())
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    of_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    outside = {id(p) for m in (head, model.get_input_embeddings()) for p in m.parameters()}
    inside = sum(p.numel() for p in model.parameters() if id(p) not in outside)
    return Shape(
        parameters=total,
        trained=sum(lora * (m.in_features + m.out_features) for m in linear) if lora else total,
        layers=text.num_hidden_layers,
        layer=inside // text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        head_trained=lora is None,
        cache=2 * text.num_hidden_layers * heads * of_head,
    )
