"""Every drift measure at every token, from both models' final hidden states, one tile of the vocabulary at a time.

A tile is processed while it fits the processor's cache and is reduced to a few sums per token. The sums of all tiles
are joined afterwards, so that no tensor of tokens × vocabulary exists.

Shapes: N tokens, C tokens of a chunk, R tokens of a block, V vocabulary, W vocabulary entries of a tile, G entries of a
group, S tiles, D width, M measures, K sums per token and tile. In `wide_product` N rows, K inner dimension, M columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from keeptune.objective.head import Head

MEASURES = ("kl", "soft_ce", "entropy", "l_f", "l_f_base", "ce", "ce_base", "agreement")


class Tiling(NamedTuple):
    """How much is processed at once."""

    chunk_tokens: int  # multiplied with a tile of the head's weight: more tokens mean fewer reads of the weight
    block_tokens: int  # of a chunk, whose logits are processed together: few enough for a core's cache
    tile_words: int  # vocabulary entries of a tile


CPU_TILING = Tiling(chunk_tokens=2048, block_tokens=64, tile_words=4096)
# On a GPU the cost is in launching kernels, not in missing the cache.
GPU_TILING = Tiling(chunk_tokens=2048, block_tokens=2048, tile_words=16384)
_GROUP_WORDS = 64


@torch.no_grad()
def token_drift(
    tuned_hidden_ND: Tensor,
    tuned_head: Head | None,
    base_hidden_ND: Tensor,
    base_head: Head | None,
    target_N: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Every measure at every token, fp64 [N, M] in the order of `MEASURES`, in nats (agreement: 0 or 1).

    The heads multiply hidden states and weights rounded to `dtype`; logits and all sums are fp32 or wider. Where a head
    is None, the states are logits already: [N, V] instead of [N, D], which are not rounded.
    The models agree at a token if the base's most likely token also has the tuned model's highest logit.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    base_words, tuned_words = _words(base_hidden_ND, base_head), _words(tuned_hidden_ND, tuned_head)
    if base_words != tuned_words:
        raise ValueError(f"the base's vocabulary has {base_words} entries, the tuned model's {tuned_words}")
    tiling = CPU_TILING if tuned_hidden_ND.device.type == "cpu" else GPU_TILING
    chunks = zip(
        (tuned_hidden_ND.to(dtype) if tuned_head else tuned_hidden_ND.float()).split(tiling.chunk_tokens),
        (base_hidden_ND.to(dtype) if base_head else base_hidden_ND.float()).split(tiling.chunk_tokens),
        target_N.split(tiling.chunk_tokens),
        strict=True,
    )
    values = []
    for tuned_CD, base_CD, target_C in chunks:
        tiles = []
        for start in range(0, base_words, tiling.tile_words):
            words = slice(start, start + tiling.tile_words)
            blocks = zip(
                _logits(tuned_CD, tuned_head, words, dtype).split(tiling.block_tokens),
                _logits(base_CD, base_head, words, dtype).split(tiling.block_tokens),
                (target_C - start).split(tiling.block_tokens),
                strict=True,
            )
            tiles.append(torch.cat([_tile_sums(*block) for block in blocks], dim=1))
        values.append(_join(torch.stack(tiles, dim=1).double(), target_C // tiling.tile_words))
    return torch.cat(values)


def _words(states_ND: Tensor, head: Head | None) -> int:
    return states_ND.shape[1] if head is None else len(head.weight_VD)


def _logits(hidden_CD: Tensor, head: Head | None, words: slice, dtype: torch.dtype) -> Tensor:
    if head is None:
        return hidden_CD[:, words].clone()  # the sums overwrite it
    bias_W = None if head.bias_V is None else head.bias_V[words]
    tile = replace(head, weight_VD=head.weight_VD[words], bias_V=bias_W)
    return tile.finish(wide_product(hidden_CD, tile.weight_VD.T, dtype))


def wide_product(left_NK: Tensor, right_KM: Tensor, dtype: torch.dtype) -> Tensor:
    """The product of both inputs rounded to `dtype`: fp32 [N, M] (fp64 if `dtype` is fp64). No gradient.

    A plain 16-bit product rounds every result to 8 or 11 bits. A small drift moves a logit by less than that.
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


def _tile_sums(tuned_RW: Tensor, base_RW: Tensor, target_R: Tensor) -> Tensor:
    """The sums of a tile for each token, [K, R]; overwrites both logits.

    A height is a logit minus its model's maximum in the tile; a mass is Σ exp(height). The base's heights, and their
    gap to the tuned model's, are summed with the base's exp(height) as weights. `target_R` counts from the tile's first
    entry; the value picked for it is meaningless if the target lies outside the tile.
    """
    base_peak_R, base_top_R = _top(base_RW)
    tuned_peak_R = tuned_RW.amax(dim=1)
    target_R1 = target_R.clamp(0, base_RW.shape[1] - 1)[:, None]
    picked = [tuned_RW.gather(1, base_top_R[:, None]), tuned_RW.gather(1, target_R1), base_RW.gather(1, target_R1)]
    height_RW = base_RW.sub_(base_peak_R[:, None])
    gap_RW = height_RW - tuned_RW.sub_(tuned_peak_R[:, None])
    tuned_mass_R = tuned_RW.exp_().sum(dim=1)
    weight_RW = torch.exp(height_RW, out=tuned_RW)
    base_mass_R = weight_RW.sum(dim=1)
    gap_R = gap_RW.mul_(weight_RW).sum(dim=1)
    height_R = height_RW.mul_(weight_RW).sum(dim=1)
    columns = [base_peak_R, tuned_peak_R, base_mass_R, tuned_mass_R, gap_R, height_R]
    return torch.stack([*columns, *(pick.squeeze(1) for pick in picked)])


def _top(logits_RW: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's highest logit and its first position, by groups: torch's own arg-max is slow over long rows."""
    rows, width = logits_RW.shape
    if width % _GROUP_WORDS:
        peak_R, top_R = logits_RW.max(dim=1)
        return peak_R, top_R
    groups_RGW = logits_RW.view(rows, width // _GROUP_WORDS, _GROUP_WORDS)
    peak_R, group_R = groups_RGW.amax(dim=2).max(dim=1)
    at_R1W = group_R[:, None, None].expand(-1, 1, _GROUP_WORDS)
    inside_R = groups_RGW.gather(1, at_R1W).squeeze(1).max(dim=1).indices
    return peak_R, group_R * _GROUP_WORDS + inside_R


def _join(sums_KSC: Tensor, target_tile_C: Tensor) -> Tensor:
    """The measures [C, M] from the sums of all tiles."""
    base_peak, tuned_peak, base_mass, tuned_mass, gap, height, tuned_at_top, tuned_at_target, base_at_target = sums_KSC
    (base_max_C, base_tile_C), tuned_max_C = base_peak.max(dim=0), tuned_peak.amax(dim=0)

    def at(values_SC: Tensor, tile_C: Tensor) -> Tensor:
        return values_SC.gather(0, tile_C[None])[0]

    base_scale, tuned_scale = (base_peak - base_max_C).exp(), (tuned_peak - tuned_max_C).exp()
    base_mass_C, tuned_mass_C = (base_mass * base_scale).sum(dim=0), (tuned_mass * tuned_scale).sum(dim=0)
    base_lse_C, tuned_lse_C = base_max_C + base_mass_C.log(), tuned_max_C + tuned_mass_C.log()
    # From differences of logits, not as soft CE − entropy, which loses digits by cancellation if the drift is small.
    gap_C = ((gap + base_mass * (base_peak - tuned_peak)) * base_scale).sum(dim=0)
    kl_C = gap_C / base_mass_C - (base_lse_C - tuned_lse_C)
    height_C = ((height + base_mass * (base_peak - base_max_C)) * base_scale).sum(dim=0)
    entropy_C = base_mass_C.log() - height_C / base_mass_C
    tuned_at_top_C = at(tuned_at_top, base_tile_C)
    return torch.stack(
        [
            kl_C,
            kl_C + entropy_C,
            entropy_C,
            tuned_lse_C - tuned_at_top_C,
            base_lse_C - base_max_C,
            tuned_lse_C - at(tuned_at_target, target_tile_C),
            base_lse_C - at(base_at_target, target_tile_C),
            (tuned_at_top_C == tuned_max_C).double(),
        ],
        dim=1,
    )
