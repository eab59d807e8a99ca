"""Every family is decoded by a form that has its own logits, or without a cache; what has other logits is found."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.replay.decoding.decoder import make_decoder
from keeptune.replay.decoding.linear import pack_linears, packing_works, unpack_linears
from keeptune.replay.decoding.llama import LlamaDecoder
from keeptune.replay.decoding.modules import ModuleDecoder, OwnCacheDecoder, PrefixDecoder
from keeptune.replay.decoding.proof import Proof
from tests.helpers.families import FAMILIES, family_model
from tests.helpers.models import make_model

# Families that do not count positions of a cache that they are given, or have another one.
OWN_CACHE = ("bamba", "falcon_mamba", "mamba", "mamba2", "minimax", "xlstm")
# RWKV of transformers mixes the rows of a batch that is read token by token. xLSTM does not run in bfloat16.
NO_CACHE, NO_CACHE_16_BIT = ("rwkv",), ("rwkv", "xlstm")


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="keeptune")
    return caplog


def stepped(decoder: Any, tokens_BP: Tensor) -> Tensor:
    decoder.begin(*tokens_BP.shape)
    with torch.inference_mode():
        return torch.stack([decoder.step(tokens_B1) for tokens_B1 in tokens_BP.split(1, dim=1)], dim=1).float()


def own(model: Any, tokens_BP: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=tokens_BP, use_cache=False).logits


def some_tokens(positions: int = 28) -> Tensor:
    return torch.randint(259, (3, positions), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_decoded_with_its_own_logits(name: str, messages: pytest.LogCaptureFixture) -> None:
    model, tokens_BP = family_model(name), some_tokens()
    expected_BPV = own(model, tokens_BP)
    decoder = make_decoder(model, torch.float32, rows=3)
    form = PrefixDecoder if name in NO_CACHE else OwnCacheDecoder if name in OWN_CACHE else ModuleDecoder
    assert type(decoder) is form
    assert ((stepped(decoder, tokens_BP) - expected_BPV).norm(dim=-1) < 1e-3 * expected_BPV.norm(dim=-1)).all()
    levels = [record.levelname for record in messages.records if type(model).__name__ in record.getMessage()]
    assert levels == {PrefixDecoder: ["WARNING"], OwnCacheDecoder: ["INFO"], ModuleDecoder: []}[form]


@pytest.mark.parametrize("name", FAMILIES)
def test_in_bfloat16_too(name: str) -> None:
    model, tokens_BP = family_model(name), some_tokens()
    exact_BPV = own(model, tokens_BP)
    decoder = make_decoder(model, torch.bfloat16, rows=3)
    assert isinstance(decoder, PrefixDecoder) == (name in NO_CACHE_16_BIT)
    off_BP = (stepped(decoder, tokens_BP) - exact_BPV).norm(dim=-1) / exact_BPV.norm(dim=-1)
    assert off_BP.median() < 0.06


class _Wrong(ModuleDecoder):
    """Decodes the model with another fault in each test."""

    def __init__(self, causal: Any, fault: str) -> None:
        super().__init__(causal)
        self.fault = fault

    def begin(self, rows: int, length: int) -> None:
        super().begin(rows, length)
        self.position = 0

    def step(self, tokens_B1: Tensor) -> Tensor:
        if self.fault == "forgets" or (self.fault == "forgets late" and self.position == 12):
            super().begin(len(tokens_B1), 28)
        if self.fault == "raises":
            raise KeyError("no such cache")
        logits_BV = super().step(tokens_B1.roll(1, 0) if self.fault == "mixes rows" and self.position else tokens_B1)
        self.position += 1
        return logits_BV * torch.nan if self.fault == "not a number" else logits_BV


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("forgets", "from position 0"),
        ("forgets late", "from position 12"),
        ("mixes rows", "from position 0"),
        ("not a number", "off by nan"),
        ("raises", "KeyError: 'no such cache'"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_with_other_logits_is_found(fault: str, words: str, dtype: torch.dtype) -> None:
    model = make_model(seed=5, width=64).to(dtype)
    proof = Proof.of(model, model.dtype)
    assert proof.fault(ModuleDecoder(model)) is None
    assert words in str(proof.fault(_Wrong(model, fault)))


def test_the_probe_reaches_past_a_short_window() -> None:
    for window, positions in ((6, 16), (18, 26), (64, 72), (4096, 16)):
        model = family_model("gemma3_text", sliding_window=window)
        assert Proof.of(model, model.dtype).tokens_BP.shape[1] == positions


class _DoesNotRepeat(torch.nn.Module):
    """Adds to the hidden states what depends on how many tokens are read at once."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + hidden.shape[1]


def test_a_model_that_no_form_can_sample_is_refused() -> None:
    model = make_model()
    model.model.norm = torch.nn.Sequential(model.model.norm, _DoesNotRepeat())
    model.config.model_type = "other"
    with pytest.raises(ConfigError, match="LlamaForCausalLM cannot be sampled: token by token") as refused:
        make_decoder(model, torch.float32, rows=3)
    assert all(form.__name__ in str(refused.value) for form in (ModuleDecoder, OwnCacheDecoder, PrefixDecoder))
    assert "text_pool" in refused.value.fix


@pytest.mark.skipif(not packing_works(), reason="needs oneDNN with bfloat16")
def test_a_packed_layer_has_the_attributes_of_a_linear_one() -> None:
    model = family_model("jamba").to(torch.bfloat16)
    before = {name: module for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    replaced = pack_linears(model, 3)
    for name, linear in before.items():
        packed = model.get_submodule(name)
        assert isinstance(packed, torch.nn.Linear) and packed is not linear
        assert (packed.weight, packed.bias) == (linear.weight, linear.bias)
        assert (packed.in_features, packed.out_features) == (linear.in_features, linear.out_features)
    unpack_linears(replaced)
    assert all(model.get_submodule(name) is linear for name, linear in before.items())
    assert isinstance(make_decoder(make_model(width=64), torch.bfloat16, 3), LlamaDecoder)
