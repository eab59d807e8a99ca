"""Matrix products of 16-bit inputs with fp32 sums and fp32 results.

A plain 16-bit product rounds every result to 8 or 11 bits. A small drift moves a logit by less than that.

Shapes: N rows, K inner dimension, M columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def wide_product(left_NK: Tensor, right_KM: Tensor, dtype: torch.dtype) -> Tensor:
    """The product of both inputs rounded to `dtype`: fp32 [N, M] (fp64 if `dtype` is fp64). No gradient.

    For bfloat16 and float16 on CPU and CUDA the products are exact and the sums fp32, regardless of autocast and of
    torch's matmul precision. On other devices, and on CUDA before torch 2.8, the sums are rounded to `dtype` first.
    Wider dtypes multiply with torch's current settings.
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
    """Let oneDNN round fp32 inputs to `precision`, which is exact for inputs already rounded, and sum in fp32."""
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
