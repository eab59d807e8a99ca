"""What is known of PEFT holds for the installed PEFT: the base inside, its names, the adapter disabled or removed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from keeptune.models.adapters import (
    adapter_off,
    base_parameters,
    causal_model,
    describe_adapters,
    evaluating,
    has_adapter,
    moved_base,
    next_token_logits,
    own_forward,
    perturbed_adapter,
    remove_idle_adapter,
    trainable_base_parameter,
    without_adapter,
)
from keeptune.models.modeling import fingerprint, head_of, hidden_states
from tests.helpers.adapters import OPTIONS, TYPES, make_base, make_config
from tests.helpers.adapters import moved as moved_alike
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


# PEFT types that need more than a row of tokens.
MORE = {"MULTITASK_PROMPT_TUNING", "POLY"}


@torch.no_grad()
def predictions(model: Any) -> torch.Tensor:
    """Logits by PEFT's own forward pass, at the row's own tokens."""
    found: torch.Tensor = model(input_ids=INPUT_BT, use_cache=False).logits
    return found[:, -INPUT_BT.shape[1] :]


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("expert")


@pytest.mark.parametrize("name", [*TYPES, *OPTIONS])
def test_every_adapter_of_the_installed_peft(name: str, expert: Path) -> None:
    """Its base is found whole, disabling it recovers the base after training, and its predictions are PEFT's own."""
    base = make_base()
    base.config.use_cache = False  # X-LoRA asks for it
    marks, own = fingerprint(base), predictions(base)
    names = {key for key, _ in base.named_parameters()}
    model = get_peft_model(base, make_config(name, expert)).eval()
    assert has_adapter(model) and describe_adapters(model)
    assert type(causal_model(model)) is LlamaForCausalLM
    if name == "layer_replication":
        assert "replicates layers" in str(moved_base(model))
        return
    assert {key for key, _ in base_parameters(model)} == names
    assert (fingerprint(model) == marks) == (moved_base(model) is None), "the list of moving initializations is wrong"
    if moved_base(model):
        return
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    with adapter_off(model):
        torch.testing.assert_close(predictions(model), own)
    assert trainable == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    moved_alike(model)
    if trainable_base_parameter(model) is None:
        assert fingerprint(model) == marks
        with adapter_off(model):
            torch.testing.assert_close(predictions(model), own)
            torch.testing.assert_close(head_of(model).logits(hidden_states(model, INPUT_BT)), own)
    if name in MORE:
        return
    tuned = predictions(model)
    assert not torch.allclose(tuned, own, atol=1e-3) or name == "alora_invocation_tokens"
    if name == "target_modules: head":
        return  # see train.base.require_language_model
    torch.testing.assert_close(head_of(model).logits(hidden_states(model, INPUT_BT)).detach(), tuned)


def test_virtual_tokens_and_invocation_tokens_need_pefts_own_forward(expert: Path) -> None:
    base = make_base()
    base.config.use_cache = False
    some = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "XLORA", "alora_invocation_tokens")
    plain = ("LORA", "IA3", "LN_TUNING", "VERA", "use_dora")
    own = {name for name in (*some, *plain) if own_forward(get_peft_model(deepcopy(base), make_config(name, expert)))}
    assert own == set(some)
    assert not own_forward(make_base())


def test_fused_experts_nest_wrappers_and_keep_their_names() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = MixtralForCausalLM(
        MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **sizes)
    )
    names, mark = {name for name, _ in model.named_parameters()}, fingerprint(model)
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", target_parameters=experts))
    assert "base_layer.base_layer" in " ".join(name for name, _ in adapted.named_parameters())
    assert {name for name, _ in base_parameters(moved(adapted))} == names
    assert fingerprint(adapted) == mark


def test_an_adapter_that_transformers_put_into_the_model_is_disabled_too() -> None:
    model, own = make_model(tie=False), logits(make_model(tie=False))
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    assert has_adapter(model) and describe_adapters(model) == "LORA"
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with adapter_off(model):
        torch.testing.assert_close(logits(model), own)
    assert trainable == [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not torch.allclose(logits(model), own, atol=1e-2)
    assert {name for name, _ in base_parameters(model)} == {
        name for name, _ in make_model(tie=False).named_parameters()
    }


@pytest.mark.parametrize("mixed", [True, False])
def test_several_adapters_are_disabled_together(mixed: bool) -> None:
    own = logits(make_model(tie=False))
    first = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(make_model(tie=False), first, adapter_name="one", mixed=mixed)
    model.add_adapter("two", LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    (model if mixed else model.base_model).set_adapter(["one", "two"])
    frozen = next(p for name, p in model.named_parameters() if "lora_A.one" in name)
    frozen.requires_grad_(False)
    with adapter_off(model):
        torch.testing.assert_close(logits(model), own)
    assert not frozen.requires_grad, "what is frozen stays frozen"
    assert type(causal_model(model)) is LlamaForCausalLM
    assert fingerprint(model) == fingerprint(make_model(tie=False))


def test_a_function_of_the_base_runs_with_the_adapter_disabled() -> None:
    model = moved(adapted())
    seen = without_adapter(lambda model: logits(model))
    torch.testing.assert_close(seen(model), logits(make_model(tie=False)))
    torch.testing.assert_close(seen(model=model), logits(make_model(tie=False)))


def test_noise_on_an_adapter_leaves_no_bit_behind() -> None:
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    still = next_token_logits(model)
    with perturbed_adapter(model):
        assert not torch.allclose(next_token_logits(model), still, atol=1e-2)
        assert fingerprint(model) == fingerprint(make_model(tie=False))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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
