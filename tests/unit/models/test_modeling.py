"""A model as hidden states and a head, its fingerprint, and how it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, PhiConfig

from keeptune.errors import ConfigError
from keeptune.models.modeling import (
    autocast,
    check_head,
    fingerprint,
    has_bf16,
    head_of,
    hidden_states,
    select_attention,
    training_dtype,
)
from tests.helpers.models import make_model

CPU = torch.device("cpu")
SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip


@torch.no_grad()
def test_hidden_states_and_head_give_the_logits() -> None:
    for tie in (True, False):
        model = make_model(tie=tie)
        input_BT = torch.arange(40).view(2, 20)
        own = model(input_ids=input_BT).logits
        torch.testing.assert_close(head_of(model).logits(hidden_states(model, input_BT)), own)
        assert head_of(model).weight_VD is model.lm_head.weight


@torch.no_grad()
def test_packed_documents_do_not_attend_to_each_other() -> None:
    model = make_model()
    packed_BT, position_BT = torch.arange(20)[None], torch.cat([torch.arange(8), torch.arange(12)])[None]
    packed = hidden_states(model, packed_BT, position_BT)
    torch.testing.assert_close(packed[:, 8:], hidden_states(model, packed_BT[:, 8:]))
    assert not torch.allclose(packed[:, 8:], hidden_states(model, packed_BT)[:, 8:], atol=1e-2)


@pytest.mark.parametrize(
    ("config", "scale", "softcap", "bias"),
    [
        (Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0), 1.0, 3.0, False),
        (CohereConfig(**SHAPE, logit_scale=0.25), 0.25, None, False),
        (GraniteConfig(**SHAPE, logits_scaling=4.0), 0.25, None, False),
        (PhiConfig(**SHAPE), 1.0, None, True),
    ],
)
def test_a_head_has_what_the_architecture_does_to_its_logits(
    config: Any, scale: float, softcap: float | None, bias: bool
) -> None:
    model = AutoModelForCausalLM.from_config(config)
    head = head_of(model)
    assert (head.scale, head.softcap, head.bias_V is not None) == (scale, softcap, bias)
    check_head(model)


def test_a_head_that_cannot_be_rebuilt_is_refused() -> None:
    model = make_model().train()
    check_head(model)
    assert model.training
    model = make_model().train()
    model.lm_head.register_forward_hook(lambda module, inputs, output: output.pow(3))
    with pytest.raises(ConfigError, match="LlamaForCausalLM cannot be rebuilt"):
        check_head(model)
    assert model.training


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules="all-linear"),
        LoraConfig(r=4, target_modules="all-linear", use_dora=True),
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
    ],
)
@pytest.mark.parametrize("tie", [True, False])
def test_a_fingerprint_does_not_see_adapters(config: LoraConfig | IA3Config, tie: bool) -> None:
    if tie and getattr(config, "modules_to_save", None):
        pytest.skip("a tied head cannot be saved apart")
    before = fingerprint(make_model(tie=tie))
    wrapped = get_peft_model(make_model(tie=tie), config)
    assert fingerprint(wrapped) == before
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    assert fingerprint(wrapped) == before


def test_a_fingerprint_sees_an_adapter_that_changes_the_base() -> None:
    wrapped = get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"))
    assert fingerprint(wrapped) != fingerprint(make_model())


def test_a_fingerprint_sees_weights_and_not_their_dtype() -> None:
    assert fingerprint(make_model().to(torch.bfloat16)) == fingerprint(make_model())
    barely = make_model()
    with torch.no_grad():
        barely.model.layers[0].mlp.up_proj.weight[3] *= 1.02
    assert fingerprint(barely) != fingerprint(make_model())


def test_training_multiplies_fp32_weights_in_bfloat16_where_the_machine_has_it() -> None:
    assert training_dtype(make_model()) == (torch.bfloat16 if has_bf16("cpu") else torch.float32)
    for dtype in (torch.float64, torch.bfloat16):
        assert training_dtype(make_model().to(dtype)) == dtype
    assert not has_bf16("meta")


def test_autocast_is_for_16_bits_and_caches_for_a_backward_pass_alone() -> None:
    with autocast(CPU, torch.float32):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(CPU, torch.bfloat16):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled()
    with torch.no_grad(), autocast(CPU, torch.bfloat16):
        assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()


def test_short_rows_attend_through_plain_products_with_equal_logits(tmp_path: Path) -> None:
    plain, suited = make_model(), make_model()
    select_attention(suited, 256)
    assert suited.config._attn_implementation == "eager"
    input_BT = torch.arange(40).view(2, 20)
    torch.testing.assert_close(suited(input_ids=input_BT).logits, plain(input_ids=input_BT).logits)
    suited.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(("implementation", "longest"), [("sdpa", 257), ("flex_attention", 128)])
def test_long_rows_and_chosen_attention_are_left_alone(implementation: str, longest: int) -> None:
    model = make_model()
    model.set_attn_implementation(implementation)
    select_attention(model, longest)
    assert model.config._attn_implementation == implementation


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs the processor's flags")
def test_bf16_is_told_by_the_processors_flags() -> None:
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    assert has_bf16("cpu") == bool({"avx512_bf16", "amx_tile"} & flags)


@pytest.mark.parametrize(("longest", "attention"), [(256, "eager"), (257, "sdpa")])
def test_short_rows_attend_through_plain_products_on_a_cpu(longest: int, attention: str) -> None:
    model = make_model()
    select_attention(model, longest)
    assert model.config._attn_implementation == attention
