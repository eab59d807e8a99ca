"""On every kind of output layer, the replay term from hidden states is the one from the model's own logits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
)

from keeptune.models.modeling import check_head, hidden_states
from keeptune.objective import forward_kl
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.teachers import LiveCopy
from keeptune.train.replay_term import replay_sum

SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama, tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama, untied": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "gemma2, soft cap": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0),
    "cohere, logit scale": CohereConfig(**SHAPE, logit_scale=0.25),
    "granite, logits scaling": GraniteConfig(**SHAPE, logits_scaling=4.0),
    "phi, head bias": PhiConfig(**SHAPE),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
}


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_replay_term_is_the_kl_of_the_models_own_logits(name: str) -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    check_head(base)
    model = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    tokens_BW = torch.randint(1, 97, (3, 12))
    batch = ReplayBatch(tokens_BW=tokens_BW, outputs={"hidden": hidden_states(base, tokens_BW[:, :-1]).detach()})
    fused = replay_sum(model, batch, LiveCopy(base, torch.float32))
    fused_gradients = gradients(fused, model)
    own = [m(input_ids=batch.inputs_BP, use_cache=False).logits.flatten(0, 1) for m in (model, base)]
    dense = forward_kl(own[0], own[1].detach())
    assert dense.item() > 0.1
    torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
    for parameter, gradient in gradients(dense, model).items():
        torch.testing.assert_close(fused_gradients[parameter], gradient, rtol=1e-3, atol=1e-4)
