"""The base writes its own text: ancestral samples, temperature 1 unless told, no top-k, no top-p, nothing stops a row.

Source: Marek et al. 2026 (arXiv 2605.26097).
Shapes: B rows, G given and T drawn tokens, V vocabulary, K blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from keeptune.replay.decoding import make_decoder

_BLOCK = 256

Opening = Sequence[int] | Sequence[Sequence[int]]


class Sampler(Protocol):
    """Writes rows of text from a base model's own distribution."""

    def sample(self, rows: int, length: int, opening: Opening, seed: int) -> Tensor:
        """`rows` rows [rows, opening + length] of int64 ids: the tokens of the opening, then `length` drawn ones.

        `opening` holds the ids that all rows open with, or a list of them for each row, all of one length.
        """
        ...


class TorchEngine:
    """The decode loop in torch, for any Hugging Face causal model on its own device.

    Args:
        model: the base; on a CPU a copy of it writes, so it may change afterwards.
        dtype: to sample in; default the model's own.
        rows: how many rows will be drawn together, for the layout of the copy's weights on a CPU.
        on_token: called with the number of rows after each step, for progress.
        temperature: divides the logits; 1 is the base's own distribution.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype | None = None,
        rows: int = 64,
        on_token: Callable[[int], None] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.device = next(model.parameters()).device
        self.writer = make_decoder(model, dtype or next(model.parameters()).dtype, rows)
        self.on_token = on_token
        self.temperature = temperature

    @torch.inference_mode()
    def sample(self, rows: int, length: int, opening: Opening, seed: int) -> Tensor:
        """See `Sampler.sample`. The same seed gives the same rows on the same machine and versions."""
        device = self.device
        generator = torch.Generator().manual_seed(seed)
        uniform_TB = torch.rand(length, rows, generator=generator, dtype=torch.float64).to(device)
        opening_BG = torch.tensor(opening, device=device).expand(rows, -1)
        given = opening_BG.shape[1]
        tokens = torch.empty(rows, given + length, dtype=torch.int64, device=device)
        tokens[:, :given] = opening_BG
        self.writer.begin(rows, given + length - 1)
        for position in range(given - 1):
            self.writer.step(tokens[:, position : position + 1])
        for drawn in range(length):
            end = given + drawn
            logits_BV = self.writer.step(tokens[:, end - 1 : end])
            tokens[:, end] = draw(logits_BV, uniform_TB[drawn], self.temperature)
            if self.on_token is not None:
                self.on_token(rows)
        return tokens.cpu()


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float = 1.0) -> Tensor:
    """One exact draw a row from softmax(logits / temperature) by inverting its cumulative distribution; ids [B].

    `uniform_B` is fp64 in [0, 1). The vocabulary is summed in blocks first: one pass over V, then two short searches,
    where `torch.multinomial` needs several passes and a random number for each word.
    """
    rows, vocabulary = logits_BV.shape
    weight_BV = logits_BV.float()
    weight_BV = weight_BV - weight_BV.amax(dim=-1, keepdim=True)
    if temperature != 1.0:
        # Beyond these the likeliest word alone is left, or all are alike, and fp32 would make them 0 and infinite.
        weight_BV.div_(min(max(temperature, 1e-30), 1e30))
    weight_BV.exp_()
    if vocabulary % _BLOCK:
        weight_BV = nn.functional.pad(weight_BV, (0, _BLOCK - vocabulary % _BLOCK))
    weight_BKC = weight_BV.view(rows, -1, _BLOCK)
    mass_BK = weight_BKC.sum(dim=-1).double()
    cumulative_BK = mass_BK.cumsum(dim=-1)
    target_B1 = uniform_B[:, None] * cumulative_BK[:, -1:]
    block_B1 = torch.searchsorted(cumulative_BK, target_B1, right=True).clamp_(max=cumulative_BK.shape[1] - 1)
    rest_B1 = target_B1 - (cumulative_BK.gather(1, block_B1) - mass_BK.gather(1, block_B1))
    chosen_BC = weight_BKC[torch.arange(rows, device=logits_BV.device), block_B1[:, 0]].double()
    inner_B1 = torch.searchsorted(chosen_BC.cumsum(dim=-1), rest_B1, right=True)
    # Rounding can push the search past the last word of positive weight; that word is then the answer.
    last_B1 = (chosen_BC > 0).long().mul_(torch.arange(_BLOCK, device=logits_BV.device)).amax(dim=-1, keepdim=True)
    return (block_B1 * _BLOCK + torch.minimum(inner_B1, last_B1))[:, 0]
