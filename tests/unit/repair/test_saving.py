"""A candidate as an adapter: exact where its change has a low rank, refused in words where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from keeptune.repair.change import Change, state_of
from keeptune.repair.saving import Factors, factors_of, place_factors
from tests.helpers.models import make_model


def low_rank(base: Tensor, rank: int) -> Tensor:
    torch.manual_seed(rank)
    return base + 0.05 * torch.randn(base.shape[0], rank) @ torch.randn(rank, base.shape[1])


def change_of(model: torch.nn.Module, tuned: dict[str, Tensor]) -> Change:
    base = {name: tensor.clone() for name, tensor in state_of(model).items()}
    change = Change(model=model, base=base, tuned=tuned, names=tuple(tuned))
    change.place_tuned()
    return change


@pytest.mark.parametrize("rank", [1, 3])
def test_a_low_rank_change_becomes_factors(rank: int) -> None:
    model = make_model(width=32)
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight",
             "model.layers.1.mlp.up_proj.weight"]  # fmt: skip
    change = change_of(model, {name: low_rank(state_of(model)[name], rank) for name in names})
    found = factors_of(change)
    assert isinstance(found, Factors) and found.rank == rank
    wanted = {name: state_of(model)[name].clone() for name in names}
    change.place_base()
    place_factors(change, found)
    for name in names:
        assert torch.allclose(state_of(model)[name], wanted[name], atol=1e-6)


def test_layers_that_store_their_weight_transposed() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    name = "transformer.h.0.mlp.c_fc.weight"
    change = change_of(model, {name: low_rank(state_of(model)[name], 2)})
    found = factors_of(change)
    assert isinstance(found, Factors)
    ((left, right),) = found.of_layer.values()
    assert (left.shape, right.shape) == ((64, 2), (2, 16))
    wanted = state_of(model)[name].clone()
    change.place_base()
    place_factors(change, found)
    assert torch.allclose(state_of(model)[name], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "rank of up to 16, so that an adapter would be no smaller"),
        ("model.norm.weight", "model.norm.weight differs, and it is no weight of a linear layer"),
        ("model.embed_tokens.weight", "it is no weight of a linear layer"),
        ("lm_head.weight", "it is no weight of a linear layer"),
    ],
)
def test_what_no_adapter_holds_is_said(name: str, why: str, tmp_path: Path) -> None:
    model = make_model(width=16, tie=False)
    torch.manual_seed(0)
    change = change_of(model, {name: state_of(model)[name] + 0.1 * torch.randn_like(state_of(model)[name])})
    found = factors_of(change)
    assert isinstance(found, str) and why in found


def test_the_base_is_no_adapter() -> None:
    model = make_model(width=16)
    name = "model.norm.weight"
    change = change_of(model, {name: state_of(model)[name].clone()})
    assert factors_of(change) == "it is the base itself"
