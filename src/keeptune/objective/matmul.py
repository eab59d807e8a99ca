"""Matrix products of 16-bit inputs whose sums stay in fp32.

A 16-bit product is as fast but rounds every sum to 8 or 11 bits, more than a small drift moves a logit.

Shapes: N rows, K inner dimension, M columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def wide_product(left_NK: Tensor, right_KM: Tensor, dtype: torch.dtype) -> Tensor:
    """The product of both inputs rounded to `dtype`: fp32 [N, M], fp64 where `dtype` is.

    For bfloat16 and float16 on the CPU and on CUDA the products are exact and summed in fp32, whatever autocast and
    torch's matmul precision say; elsewhere, and on CUDA before torch 2.8, the sums are rounded to `dtype` first.
    Wider dtypes multiply as torch is set to. No gradient passes.
    """
    left_NK, right_KM = left_NK.detach().to(dtype), right_KM.detach().to(dtype)
    device = left_NK.device.type
    with torch.autocast(device, enabled=False):
        if dtype.itemsize != 2:
            return left_NK @ right_KM
        if device == "cpu":
            with _cpu_products("bf16" if dtype == torch.bfloat16 else "ieee"):
                return left_NK.float() @ right_KM.float()
        if device == "cuda" and "dtype" in torch.ops.aten.mm.overloads():
            return torch.mm(left_NK, right_KM, out_dtype=torch.float32)
        return (left_NK @ right_KM).float()


@contextmanager
def _cpu_products(precision: str) -> Iterator[None]:
    """oneDNN rounds fp32 inputs to `precision`, which loses nothing where they are rounded, and sums in fp32."""
    if hasattr(torch.backends.mkldnn, "matmul"):
        switch = torch.backends.mkldnn.matmul
        before = switch.fp32_precision
        switch.fp32_precision = precision
        try:
            yield
        finally:
            switch.fp32_precision = before
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "bf16" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
