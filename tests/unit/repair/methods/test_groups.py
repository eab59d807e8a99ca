"""Groups of modules by name, and the coefficients that follow from two readings of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from keeptune.repair.methods.groups import Groups, blocks_of, group_of

NAMES = [
    ("model.embed_tokens.weight", "outside"),
    ("lm_head.weight", "outside"),
    ("model.norm.weight", "outside"),
    ("model.layers.0.self_attn.q_proj.weight", "early attention"),
    ("model.layers.5.mlp.down_proj.weight", "late mlp"),
    ("model.layers.2.input_layernorm.weight", "middle mlp"),
    ("transformer.h.3.attn.c_attn.weight", "middle attention"),
    ("gpt_neox.layers.4.attention.query_key_value.bias", "late attention"),
    ("backbone.layers.1.mixer.in_proj.weight", "early attention"),
    ("model.layers.1.block_sparse_moe.experts.7.w1.weight", "early mlp"),
    ("model.layers.5.self_attn.q_proj.lora_B.default.weight", "late attention"),
]


@pytest.mark.parametrize(("name", "group"), NAMES)
def test_a_tensor_belongs_to_a_group_by_its_name(name: str, group: str) -> None:
    assert group_of(name, 6) == group


def test_blocks_are_counted() -> None:
    assert blocks_of(name for name, _ in NAMES) == 6
    assert blocks_of(["wte.weight"]) == 1


def groups(forgets: dict[str, float], learns: dict[str, float]) -> Groups:
    """Measured on a quadratic whose terms are these."""
    names = {f"model.layers.{place}.mlp.w": group for place, group in enumerate(forgets)}
    of = dict(zip(("early mlp", "middle mlp", "late mlp"), forgets, strict=True))

    def kl(is_tuned: Callable[[str], bool]) -> tuple[float, float]:
        tuned = {group for name, group in names.items() if is_tuned(name)}
        return sum(forgets[g] for g in tuned), sum(learns[g] for g in learns.keys() - tuned)

    found = Groups.measure(names, 3, kl)
    assert {of[group] for group in found.groups.values()} == set(forgets)
    return found


def test_the_coefficients_solve_the_quadratic_problem() -> None:
    forgets, learns = {"a": 3.0, "b": 1.0, "c": 0.5}, {"a": 0.5, "b": 1.0, "c": 4.0}
    found = groups(forgets, learns)
    of = ("early mlp", "middle mlp", "late mlp")
    assert found.coefficient(of[0], 0.5) < found.coefficient(of[1], 0.5) < found.coefficient(of[2], 0.5)
    a, b = torch.tensor(list(forgets.values())), torch.tensor(list(learns.values()))
    best = torch.tensor([found.coefficient(group, 0.4) for group in of])
    budget, cost = (a * best**2).sum(), (b * (1 - best) ** 2).sum()
    torch.manual_seed(0)
    for _ in range(200):
        other = (best + 0.05 * torch.randn(3)).clamp(0, 1)
        other = other * (budget / (a * other**2).sum()).sqrt()  # as far from the base
        assert (b * (1 - other) ** 2).sum() >= cost - 1e-6


def test_a_group_without_any_effect_follows_the_strength() -> None:
    found = groups({"a": 0.0, "b": 1.0, "c": -1e-9}, {"a": 0.0, "b": 1.0, "c": 0.0})
    assert found.coefficient("early mlp", 0.3) == 0.3
    assert found.coefficient("middle mlp", 1.0) == 1.0
    assert found.coefficient("middle mlp", 0.0) == 0.0
