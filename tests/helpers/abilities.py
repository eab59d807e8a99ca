"""A tiny model that has one ability, taught by heart, and the same model after it lost it."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from keeptune.audit.abilities.ask import Reason, put
from keeptune.audit.abilities.item import Ability, Chance, Item, Name
from tests.helpers.models import make_tokenizer

ITEMS = tuple(
    Item(name=f"{key}{digit}", kind=key, prompt=f"{key}{digit}", check=f"{key}={digit}".__eq__)
    for key in "ab"
    for digit in range(6)
)
ABILITY = Ability(name=Name.FORMAT, title="Pairs", about="key=digit", items=ITEMS, new_tokens=6, chance=Chance.ACCIDENT)


@cache
def able() -> LlamaForCausalLM:
    """One that passes every item."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model, tokenizer = LlamaForCausalLM(config), make_tokenizer()
    asked = put(ABILITY, model, tokenizer)
    assert not isinstance(asked, Reason)
    answers = [tokenizer(f"{one.name[0]}={one.name[1]}")["input_ids"] + [2] for one in ITEMS]
    ids = torch.tensor([prompt + answer for prompt, answer in zip(asked.prompts, answers, strict=True)])
    labels = ids.clone()
    labels[:, :-4] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(500):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def noised(model: Any) -> Any:
    """One that passes none."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return other
