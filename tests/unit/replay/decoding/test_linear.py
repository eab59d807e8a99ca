"""Packed products equal plain ones, and where torch does not have them (or they go wrong) plain ones are used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch._ops import _OpNamespace
from torch.nn import functional

from keeptune.log import logger
from keeptune.replay.decoding.decoder import ModuleDecoder, make_decoder
from keeptune.replay.decoding.linear import FusedLinear, PackedLinear, packing_works
from keeptune.replay.decoding.llama import LlamaDecoder
from keeptune.replay.engines.torch import TorchEngine
from tests.helpers.models import make_model

needs_packing = pytest.mark.skipif(not packing_works(), reason="needs oneDNN with bfloat16")


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    packing_works.cache_clear()
    yield
    packing_works.cache_clear()


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.DEBUG, logger="keeptune")
    return caplog


def layers(bias: bool) -> tuple[list[nn.Linear], torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    linears = [nn.Linear(64, width, bias=bias, dtype=torch.bfloat16) for width in (32, 16)]
    return linears, torch.randn(5, 64, dtype=torch.bfloat16), torch.randn(5, 48, dtype=torch.bfloat16)


@needs_packing
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_products_are_those_of_the_layers_side_by_side(bias: bool) -> None:
    linears, hidden, other = layers(bias)
    product = torch.cat([functional.linear(hidden, each.weight, each.bias) for each in linears], dim=-1).float()
    expected = [product, functional.silu(product), product * other, product + other]
    for linear in (FusedLinear(linears, 5), FusedLinear(linears, None)):
        found = [linear(hidden), linear(hidden, "silu"), linear(hidden, "times", other), linear(hidden, "plus", other)]
        for ours, reference in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.float(), reference, rtol=2e-2, atol=2e-2)


@needs_packing
def test_packed_layers_are_used_where_they_work() -> None:
    decoder = make_decoder(make_model(width=64), torch.bfloat16, rows=3)
    assert isinstance(decoder, LlamaDecoder) and decoder.head.packed is not None
    windowed = make_model(width=64)
    windowed.config.model_type = "other"
    modules = make_decoder(windowed, torch.bfloat16, rows=3)
    assert isinstance(modules, ModuleDecoder) and isinstance(modules.causal.lm_head, PackedLinear)


def plain_samples(model: Any) -> torch.Tensor:
    """What the model writes through the same decoder over plain layers."""
    engine = TorchEngine(model, dtype=torch.bfloat16, rows=4)
    assert isinstance(engine.decoder, LlamaDecoder) and engine.decoder.head.packed is None
    return engine.sample(4, 20, [0], seed=3)


def broken(**operators: Any) -> SimpleNamespace:
    """oneDNN's operators, some of them replaced."""
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    return SimpleNamespace(**{name: getattr(torch.ops.mkldnn, name) for name in names} | operators)


def refuses(*given: Any) -> None:
    raise RuntimeError("could not create a primitive")


class _Wrong:
    """The packed product off by a factor."""

    def __init__(self) -> None:
        self.right = torch.ops.mkldnn._linear_pointwise

    def __call__(self, *given: Any) -> torch.Tensor:
        return self.right(*given) * 1.1

    def binary(self, *given: Any) -> torch.Tensor:
        return self.right.binary(*given)


@needs_packing
@pytest.mark.parametrize(
    ("operators", "level", "message"),
    [
        (lambda: _OpNamespace("mkldnn_without_operators"), "WARNING", "no attribute '_is_mkldnn_bf16_supported'"),
        (lambda: SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True), "WARNING", "no attribute '_reorder_linear"),
        (lambda: broken(_reorder_linear_weight=refuses), "WARNING", "could not create a primitive"),
        (lambda: broken(_linear_pointwise=_Wrong()), "WARNING", "differ from plain ones (product)"),
        (lambda: broken(_is_mkldnn_bf16_supported=lambda: False), "DEBUG", "no bfloat16 products on this machine"),
    ],
)
def test_without_the_operators_plain_layers_write(
    monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture, operators: Any, level: str, message: str
) -> None:
    model = make_model(width=64)
    monkeypatch.setattr(torch.ops, "mkldnn", operators())
    assert not packing_works()
    rows = plain_samples(model)
    assert rows.shape == (4, 21) and torch.equal(rows, plain_samples(model))
    (record,) = [record for record in messages.records if "oneDNN" in record.getMessage()]
    assert (record.levelname, message in record.getMessage()) == (level, True)
