"""What holds for every method: exact ends, and nothing outside them where tensors agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from keeptune.repair.methods import METHODS, Method
from keeptune.repair.methods.groups import Groups

SHAPES = [(12, 8), (8, 12), (8, 8), (16,), (1, 5), (2, 6, 4)]
_WEIGHTS = [name for name, kind in METHODS.items() if kind is not None]


def made(name: str) -> Method:
    if name == "groups":
        return Groups(groups={"w": "outside"}, forgets={"outside": 1.0}, learns={"outside": 1.0})
    kind = METHODS[name]
    assert kind is not None
    return kind()


def ends(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(shape)
    return base, base + 0.1 * torch.randn(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", _WEIGHTS)
def test_the_ends_are_exact(name: str, shape: tuple[int, ...]) -> None:
    method, (base, tuned) = made(name), ends(shape)
    assert method.name == name
    assert torch.equal(method.weight("w", base, tuned, 0.0), base)
    assert torch.equal(method.weight("w", base, tuned, 1.0), tuned) is method.ends_at_tuned


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", _WEIGHTS)
def test_what_tuning_left_alone_stays(name: str, strength: float) -> None:
    base, tuned = ends((8, 6))
    tuned[2:] = base[2:]
    assert torch.equal(made(name).weight("w", base, base.clone(), strength), base)
    if name in ("interpolate", "groups", "trim", "dare"):
        assert torch.equal(made(name).weight("w", base, tuned, strength)[2:], base[2:])


@pytest.mark.parametrize("name", _WEIGHTS)
def test_more_strength_is_nearer_to_the_other_end(name: str) -> None:
    base, tuned = ends((24, 16))
    far = [float((made(name).weight("w", base, tuned, s) - base).norm()) for s in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert far == sorted(far)


def test_linear_methods_stay_on_the_line() -> None:
    base, tuned = ends((8, 6))
    for name in _WEIGHTS:
        method = made(name)
        share = (method.weight("w", base, tuned, 0.7) - base) / (tuned - base)
        assert bool((share - share.mean()).abs().max() < 1e-4) is method.linear, name
