"""Tensors of both ends on disk, and candidates made in the one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from keeptune.models.modeling import fingerprint
from keeptune.repair.change import Change, state_of, store
from tests.helpers.models import make_model
from tests.helpers.repair import moved


def change_of(folder: Path, *, tie: bool) -> tuple[Change, dict[str, Tensor], dict[str, Tensor]]:
    base, model = make_model(width=16, tie=tie), moved(make_model(width=16, tie=tie))
    before = {name: tensor.clone() for name, tensor in state_of(base).items()}
    after = {name: tensor.clone() for name, tensor in state_of(model).items()}
    kept = store(state_of(base), folder / "base.safetensors"), store(state_of(model), folder / "tuned.safetensors")
    names = tuple(name for name in before if not (tie and name == "lm_head.weight"))
    return Change(model=model, base=kept[0], tuned=kept[1], names=names), before, after


@pytest.mark.parametrize("tie", [True, False])
def test_both_ends_come_back_bit_for_bit(tmp_path: Path, tie: bool) -> None:
    change, before, after = change_of(tmp_path, tie=tie)
    mark = fingerprint(change.model)
    change.place_base()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(change.model).items())
    assert fingerprint(change.model) == fingerprint(make_model(width=16, tie=tie))
    change.place(lambda name, base, tuned: torch.lerp(base, tuned, 0.5))
    change.place_tuned()
    assert all(torch.equal(tensor, after[name]) for name, tensor in state_of(change.model).items())
    assert fingerprint(change.model) == mark


def test_a_tied_tensor_is_stored_once_and_has_both_names(tmp_path: Path) -> None:
    model = make_model(width=16)
    kept = store(state_of(model), tmp_path / "w.safetensors")
    assert torch.equal(kept["lm_head.weight"], kept["model.embed_tokens.weight"])
    assert "lm_head.weight" in kept and "nothing" not in kept
    assert set(kept) == set(state_of(model))
    size = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "w.safetensors").stat().st_size < 4 * size + 8192


@pytest.mark.parametrize(("exact", "size"), [(True, 2), (False, 4)])
def test_a_narrow_file_loses_nothing(tmp_path: Path, exact: bool, size: int) -> None:
    tensor = torch.randn(64, 64)
    tensor = tensor.bfloat16().float() if exact else tensor
    kept = store({"w": tensor}, tmp_path / "w.safetensors", torch.bfloat16)
    assert torch.equal(kept["w"], tensor) and kept["w"].dtype == torch.float32
    assert 4096 * size <= (tmp_path / "w.safetensors").stat().st_size < 4096 * size + 512


def test_a_candidate_is_rounded_as_it_will_be_saved(tmp_path: Path) -> None:
    change, _, after = change_of(tmp_path, tie=True)
    change.round_to(torch.float32)
    name = "model.norm.weight"
    assert torch.equal(state_of(change.model)[name], after[name])
    change.round_to(torch.bfloat16)
    assert torch.equal(state_of(change.model)[name], after[name].bfloat16().float())
