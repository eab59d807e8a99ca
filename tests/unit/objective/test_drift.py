"""Wide products against fp64 products of the rounded inputs, and torch's settings left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from keeptune.objective.drift import wide_product

NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
SHAPES = [(1, 5, 3), (7, 33, 11), (130, 96, 515)]


def precision() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)


@pytest.fixture
def ambient(request: pytest.FixtureRequest) -> Iterator[str]:
    """torch's matmul precision set by somebody else."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def draw(rows: int, inner: int, columns: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(columns, inner, generator=generator).T
    return left.to(device), right.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ambient", ["highest", "medium"], indirect=True)
@pytest.mark.parametrize("autocast", [False, True])
def test_inputs_round_and_sums_do_not(
    device: str, shape: tuple[int, int, int], dtype: torch.dtype, ambient: str, autocast: bool
) -> None:
    left, right = draw(*shape, device)
    expected = left.to(dtype).double() @ right.to(dtype).double()
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        result = wide_product(left, right, dtype)
        already_rounded = wide_product(left.to(dtype), right.to(dtype), dtype)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=2e-5)
    assert torch.equal(result, already_rounded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_dtypes_multiply_plainly(dtype: torch.dtype) -> None:
    left, right = draw(7, 33, 11, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        result = wide_product(left, right, dtype)
    assert torch.equal(result, left.to(dtype) @ right.to(dtype))


@pytest.mark.parametrize("ambient", ["highest", "high", "medium"], indirect=True)
def test_the_precision_is_restored_even_on_an_error(ambient: str) -> None:
    before = precision()
    with pytest.raises(RuntimeError):
        wide_product(torch.zeros(2, 3), torch.zeros(4, 5), torch.bfloat16)
    assert precision() == before
    assert torch.get_float32_matmul_precision() == ambient


def test_torch_before_2_9_has_one_precision_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = draw(130, 96, 515, "cpu")
    expected = wide_product(left, right, torch.bfloat16)
    monkeypatch.setattr(torch.backends, "mkldnn", SimpleNamespace())
    assert torch.equal(wide_product(left, right, torch.bfloat16), expected)
    assert torch.get_float32_matmul_precision() == "highest"
