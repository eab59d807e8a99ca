"""A forward pass without training's noise: the evaluation's values and gradients, with and without checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.integrations.neftune import activate_neftune

from keeptune.models.noise import without_noise

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
INPUTS_BT = torch.arange(24).reshape(2, 12)


def llama(**config: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **config))


def neftune() -> nn.Module:
    model = llama()
    activate_neftune(model, 5.0)
    return model


def gpt2(**config: Any) -> nn.Module:
    quiet = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, **{**quiet, **config}))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=4, router_jitter_noise=0.5))


def opt() -> nn.Module:
    """Its layers call the dropout function themselves, and whole layers are skipped at random."""
    config = OPTConfig(
        vocab_size=64, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        dropout=0.3, layerdrop=0.5,
    )  # fmt: skip
    return OPTForCausalLM(config)


def falcon() -> nn.Module:
    config = FalconConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, hidden_dropout=0.3, alibi=False
    )
    return FalconForCausalLM(config)


def lora() -> nn.Module:
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


NOISES: dict[str, Callable[[], nn.Module]] = {
    "NEFTune": neftune,
    "attention dropout": lambda: llama(attention_dropout=0.3),
    "residual dropout": lambda: gpt2(resid_pdrop=0.3),
    "embedding dropout": lambda: gpt2(embd_pdrop=0.3),
    "dropout functions and skipped layers": opt,
    "dropout functions": falcon,
    "LoRA dropout": lora,
    "router jitter": mixtral,
}


def values_and_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The logits, and the gradient of every trained parameter, which the backward pass computes after the block."""
    model.zero_grad()
    with without_noise(model):
        logits_BTV = model(input_ids=INPUTS_BT, use_cache=False).logits
    logits_BTV.float().log_softmax(-1).square().mean().backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {"logits": logits_BTV.detach(), **found}


def checkpointing(model: nn.Module, how: str) -> None:
    if how == "wrapped":  # as FSDP's activation checkpointing
        apply_activation_checkpointing(model, check_fn=lambda module: type(module).__name__.endswith("DecoderLayer"))
    elif how != "none":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": how == "reentrant"})
        model.enable_input_require_grads()


@pytest.mark.parametrize("how", ["none", "recomputing", "reentrant", "wrapped"])
@pytest.mark.parametrize("noise", NOISES)
def test_values_and_gradients_are_those_of_evaluation(noise: str, how: str) -> None:
    torch.manual_seed(0)
    model = NOISES[noise]()
    expected = values_and_gradients(model.eval())
    checkpointing(model.train(), how)
    flags = {name: module.training for name, module in model.named_modules()}
    found = values_and_gradients(model)
    for (name, value), (_, reference) in zip(found.items(), expected.items(), strict=True):
        torch.testing.assert_close(value, reference, msg=name)
    assert {name: module.training for name, module in model.named_modules()} == flags
    with torch.no_grad():
        noisy, again = (model(input_ids=INPUTS_BT, use_cache=False).logits for _ in range(2))
    assert not torch.equal(noisy, again), "the model has no noise, so that nothing was shown"


@pytest.mark.parametrize("how", ["recomputing", "reentrant", "wrapped"])
def test_checkpointing_stays_enabled(how: str) -> None:
    model = llama(attention_dropout=0.3).train()
    checkpointing(model, how)
    passes: list[bool] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda module, given: passes.append(module.training))
    values_and_gradients(model)
    assert passes == [False, False], "the layer is computed again in the backward pass, without noise too"
