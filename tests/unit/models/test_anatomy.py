"""How models come to their logits, on those that differ from most in it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from keeptune.errors import ConfigError
from keeptune.models.anatomy import Anatomy, anatomy_of
from keeptune.models.loading import load_model
from keeptune.models.modeling import head_of, hidden_states, trained_by_text
from tests.families.catalog import FAMILIES
from tests.families.harness import make_base
from tests.families.shrink import VOCABULARY, shrunk
from tests.helpers.models import make_model

# name → whether the decoder gives the states that enter the output layer, the scale, the soft cap
HARD: dict[str, tuple[bool, float, float | None]] = {
    "llama": (True, 1.0, None),
    "granite, scaled": (True, 0.25, None),
    "hyperclovax": (True, 4.0, None),  # Granite's name for its inverse
    "minicpm3": (True, 0.5, None),  # scales the states and not the logits
    "inkling_text": (False, 1.0, None),  # the same, under another name
    "cohere": (True, 0.5, None),
    "gemma2, low caps": (True, 1.0, 3.0),
    "recurrent_gemma": (True, 1.0, 30.0),  # the soft cap under another name
    "xlstm": (True, 1.0, 30.0),
    "modernbert-decoder": (False, 1.0, None),  # a layer between its decoder and its output layer
    "bert, decoder": (False, 1.0, None),
    "llama4_text": (False, 1.0, None),  # its `get_decoder` gives the model itself
    "llama4": (False, 1.0, None),
    "qwen2_vl": (True, 1.0, None),
    "rwkv": (True, 1.0, None),
}
TOWERS = {"llama4": ("vision_model", "multi_modal_projector"), "qwen2_vl": ("model.visual",), "llama": ()}


@pytest.fixture(scope="module", params=HARD)
def hard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = make_base(FAMILIES[request.param], tmp_path_factory.mktemp("base"))
    return request.param, load_model(str(folder))


def test_hidden_states_and_head_give_the_models_own_logits(hard: tuple[str, Any]) -> None:
    name, model = hard
    tokens_BT = torch.randint(3, 240, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = model(input_ids=tokens_BT).logits
        rebuilt = head_of(model).logits(hidden_states(model, tokens_BT))
    torch.testing.assert_close(rebuilt, own, rtol=1e-5, atol=1e-5)
    anatomy = anatomy_of(model)
    by_decoder, scale, softcap = HARD[name]
    assert anatomy.by_decoder is by_decoder
    assert (anatomy.scale, anatomy.softcap) == (pytest.approx(scale, rel=1e-6), softcap)
    assert anatomy.idle == TOWERS.get(name, anatomy.idle)


def test_what_text_trains_is_what_gets_a_gradient(hard: tuple[str, Any]) -> None:
    model = copy.deepcopy(hard[1]).train()
    head_of(model).logits(hidden_states(model, torch.arange(3, 27)[None])).logsumexp(-1).sum().backward()
    assert trained_by_text(model) == sum(p.numel() for p in model.parameters() if p.grad is not None)


def test_a_model_is_left_as_it_was(hard: tuple[str, Any]) -> None:
    model = copy.deepcopy(hard[1]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, head = torch.random.get_rng_state(), model.get_output_embeddings()
    anatomy_of(model)
    hidden_states(model, torch.arange(3, 9)[None])
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "forward" not in vars(head)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in head.modules())


def test_under_autocast_the_anatomy_is_the_same() -> None:
    torch.manual_seed(0)
    one, other = (from_config(FAMILIES["gemma2, low caps"].config()) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = anatomy_of(one)
    assert found == anatomy_of(other)


def from_config(config: Any) -> Any:
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2, low caps", "granite, scaled", "modernbert-decoder"])
def test_16_bit_models_have_the_scale_and_cap_of_their_configuration(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    anatomy = anatomy_of(from_config(FAMILIES[name].config()).to(dtype))
    assert anatomy == Anatomy(*HARD[name], idle=())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2, low caps", "granite, scaled"])
def test_a_host_may_switch_autocast_on_in_the_model(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = from_config(FAMILIES[name].config())
    inner = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:  # as Unsloth's on a CPU
        with torch.autocast("cpu", dtype):
            output = inner(*args, **kwargs)
        output.logits = output.logits.float()
        return output

    model.forward = forward
    assert anatomy_of(model) == Anatomy(*HARD[name], idle=())


def test_an_expert_that_no_token_chose_is_part_of_what_text_trains() -> None:
    model = make_model()
    model.model.layers[0].mlp = Experts(model.model.layers[0].mlp)
    assert anatomy_of(model).idle == ()
    model.tower = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    other = copy.deepcopy(model)
    assert anatomy_of(other).idle == ("tower",)
    assert trained_by_text(other) == sum(p.numel() for p in other.parameters()) - 40


class Experts(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.experts = nn.ModuleList([mlp, copy.deepcopy(mlp)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.experts[0](hidden)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", "change with the tokens after it"),
        ("xlnet", "change with the tokens after it"),
        ("paligemma", "change with the tokens after it"),
        ("t5", "is an encoder-decoder"),
        ("bart", "is an encoder-decoder"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    folder = make_base(FAMILIES[name], tmp_path)
    if name in ("t5", "bart"):
        with pytest.raises(ConfigError, match=reason):
            anatomy_of(AutoModelForSeq2SeqLM.from_pretrained(folder))
        return
    model = load_model(str(folder))
    with pytest.raises(ConfigError, match=reason):
        head_of(model)
    tokens_BT = torch.arange(3, 12).repeat(2, 1)
    tokens_BT[1, -1] = 99
    with torch.no_grad():
        first, second = model(input_ids=tokens_BT).logits[:, :-1]
    assert not torch.allclose(first, second, atol=1e-3), "the reason is true"


def test_a_classifier_and_an_unknown_way_to_the_logits_are_refused() -> None:
    config = LlamaConfig(**{**shrunk("llama").to_dict(), "num_labels": 2})
    with pytest.raises(ConfigError, match="no language-model head"):
        anatomy_of(LlamaForSequenceClassification(config))

    class Squared(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits**3
            return output

    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="cannot be rebuilt"):
        anatomy_of(Squared(shrunk("llama")))
    assert len(make_model().get_output_embeddings().weight) == VOCABULARY


def test_rwkv_has_the_same_weights_in_both_modes(tmp_path: Path) -> None:
    """Its seventh layer is scaled down in evaluation mode, and would be saved so."""
    model = load_model(str(make_base(FAMILIES["rwkv"], tmp_path)))
    tokens_BT = torch.arange(3, 15)[None]
    with torch.no_grad():
        scaled = model(input_ids=tokens_BT).logits
        before = load_model(str(tmp_path)).state_dict()
        hidden_states(model, tokens_BT)
        torch.testing.assert_close(model(input_ids=tokens_BT).logits, scaled, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
