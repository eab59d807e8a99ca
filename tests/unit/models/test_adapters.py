"""What is known of PEFT holds for the installed PEFT: the base inside, its names, the adapter disabled or removed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from keeptune.models.adapters import (
    adapter_mismatch,
    adapter_off,
    base_parameters,
    causal_model,
    evaluating,
    has_adapter,
    remove_idle_adapter,
    trainable_base_parameter,
)
from tests.helpers.models import make_model

INPUT_BT = torch.arange(24).view(2, 12)
CONFIGS = {
    "lora": LoraConfig(r=4, target_modules="all-linear"),
    "dora": LoraConfig(r=4, target_modules="all-linear", use_dora=True),
    "head saved": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
}


def adapted(name: str = "lora", **settings: Any) -> Any:
    """The tiny model with an adapter; with settings a LoRA of these."""
    config = LoraConfig(r=4, target_modules="all-linear", **settings) if settings else CONFIGS[name]
    return get_peft_model(make_model(tie=False), config).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=INPUT_BT).logits


@torch.no_grad()
def moved(model: Any) -> Any:
    """The model with every trainable parameter changed, as by training."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.1
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_the_base_is_found_inside_with_its_own_names(name: str) -> None:
    plain, model = make_model(tie=False), adapted(name)
    assert has_adapter(model) and not has_adapter(plain)
    assert type(causal_model(model)) is type(causal_model(plain)) is type(plain)
    assert causal_model(plain) is plain
    found, expected = dict(base_parameters(moved(model))), dict(base_parameters(plain))
    assert expected.keys() == dict(plain.named_parameters()).keys() == found.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_disabling_the_adapter_recovers_the_base_and_enables_it_again(name: str) -> None:
    model, base = moved(adapted(name)), logits(make_model(tie=False))
    tuned = logits(model)
    assert not torch.allclose(tuned, base, atol=1e-2)
    with adapter_off(model):
        torch.testing.assert_close(logits(model), base)
    assert torch.equal(logits(model), tuned)


def test_without_an_adapter_nothing_is_disabled() -> None:
    model = make_model()
    before = logits(model)
    with adapter_off(model):
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_ends_with_the_block_whatever_happens(training: bool) -> None:
    model = make_model().train(training)
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training is training


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_adapter_matches_the_base(name: str) -> None:
    assert adapter_mismatch(adapted(name).train()) is None
    assert adapter_mismatch(make_model()) is None


@pytest.mark.parametrize("initialization", ["pissa", "olora"])
def test_an_adapter_that_took_part_of_the_base_does_not_match_it(initialization: str) -> None:
    assert "before training" in str(adapter_mismatch(adapted(init_lora_weights=initialization)))
    assert "already trained" in str(adapter_mismatch(moved(adapted())))


def test_a_trainable_parameter_of_the_base_is_named() -> None:
    assert trainable_base_parameter(adapted()) is None
    assert trainable_base_parameter(adapted("head saved")) is None
    assert trainable_base_parameter(adapted(bias="all", use_rslora=True)) is None, "the tiny model has no biases"
    assert trainable_base_parameter(make_model()) == "model.embed_tokens.weight"
    half_frozen = adapted()
    causal_model(half_frozen).model.norm.weight.requires_grad_(True)
    assert trainable_base_parameter(half_frozen) == "model.norm.weight"


def test_an_idle_adapter_is_removed_and_another_kept() -> None:
    idle, busy, plain = adapted(), moved(adapted()), make_model(tie=False)
    tuned = logits(busy)
    for model in (idle, busy, plain):
        remove_idle_adapter(causal_model(model), INPUT_BT)
    assert type(causal_model(idle).model.layers[0].self_attn.q_proj) is torch.nn.Linear
    assert torch.equal(logits(idle), logits(plain))
    assert torch.equal(logits(busy), tuned)
