"""The engine in torch: ancestral sampling in a decode loop, for every Hugging Face causal model.

Source: Marek et al. 2026 (arXiv 2605.26097).
Shapes: B rows, C checked rows, G given and T sampled tokens, V vocabulary, K blocks of the vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model
from keeptune.models.quantized import is_quantized
from keeptune.models.sharded import is_sharded, without_grad
from keeptune.replay.decoding.decoder import make_decoder
from keeptune.replay.decoding.modules import PrefixDecoder, own_cache_bytes
from keeptune.replay.openings import OpeningIds
from keeptune.system import free_bytes

# On a CPU twice the rows are 17 % faster (benchmarks/bench_sample.py), but take twice the memory, and a kill loses
# twice the work.
_MOST_ROWS = {"cpu": 128, "cuda": 1024}
_BLOCK = 256
# Rows whose log-probabilities are kept, to hold them against the full forward.
_CHECKED_ROWS = 8


class TorchEngine:
    """The decode loop in torch, on the model's own device, in `dtype` (default the model's own).

    On a CPU the engine decodes with a copy, laid out for `rows` rows at once, so the model may change afterwards.
    `on_token` is called after each step with the number of rows, for progress. After `sample`, `log_probs_CT` holds the
    log-probabilities at temperature 1 of the tokens drawn in the first rows, fp32 [C, T].
    """

    name = "torch"

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
        self.model, self.dtype = model, dtype or next(model.parameters()).dtype
        self.decoder = make_decoder(model, self.dtype, rows)
        self.rows, self.temperature, self.on_token = rows, temperature, on_token

    def sample(self, rows: int, length: int, opening: OpeningIds, seed: int) -> Tensor:
        """See `Engine.sample`. The same seed gives the same rows on the same machine and versions."""
        with without_grad(self.model):
            return self._sample(rows, length, opening, seed)

    def _sample(self, rows: int, length: int, opening: OpeningIds, seed: int) -> Tensor:
        device = self.device
        generator = torch.Generator().manual_seed(seed)
        uniform_TB = torch.rand(length, rows, generator=generator, dtype=torch.float64).to(device)
        opening_BG = torch.tensor(opening, device=device).expand(rows, -1)
        given = opening_BG.shape[1]
        tokens = torch.empty(rows, given + length, dtype=torch.int64, device=device)
        tokens[:, :given] = opening_BG
        self.decoder.begin(rows, given + length - 1)
        drawn = []
        for position in range(given - 1):
            self.decoder.step(tokens[:, position : position + 1])
        for sampled in range(length):
            end = given + sampled
            logits_BV = self.decoder.step(tokens[:, end - 1 : end])
            tokens[:, end] = draw(logits_BV, uniform_TB[sampled], self.temperature)
            log_p_BV = logits_BV[:_CHECKED_ROWS].float().log_softmax(dim=-1)
            drawn.append(log_p_BV.gather(1, tokens[:_CHECKED_ROWS, end, None]))
            if self.on_token is not None:
                self.on_token(rows)
        self.log_probs_CT = torch.cat(drawn, dim=1).cpu()
        return tokens.cpu()

    def slow_down(self) -> bool:
        """Take the slowest decoder, which needs no cache, because samples did not follow the base's distribution.

        Returns False if it was the slowest already.
        """
        if isinstance(self.decoder, PrefixDecoder):
            return False
        self.decoder = make_decoder(self.model, self.dtype, self.rows, cached=False)
        return True

    @staticmethod
    def rows_that_fit(model: nn.Module, length: int, dtype: torch.dtype) -> int:
        """Rows of `length` tokens that fit half of the memory that is free beside the decoder's copy of `model`.

        A power of two, so that small changes of the free memory change nothing. Raises `ConfigError` if no row fits.
        """
        causal = causal_model(model)
        config, weight = causal.config.get_text_config(), causal.get_output_embeddings().weight
        cache = _cache_bytes(causal, 1 + length, dtype)
        draw = len(weight) * (dtype.itemsize + 3 * torch.float32.itemsize)
        stored = 2 * config.hidden_size * length * dtype.itemsize  # hidden states, in chunks and then concatenated
        copied = not is_quantized(causal) and not is_sharded(causal)
        copied = copied and (weight.device.type == "cpu" or weight.dtype != dtype)
        copy = sum(p.numel() for p in causal.parameters()) * (weight.dtype.itemsize + dtype.itemsize) if copied else 0
        if weight.device.type == "cpu":
            fits = (free_bytes("cpu") - copy) // 2 // (cache + draw + stored)
        else:
            fits = min((free_bytes(weight.device) - copy) // 2 // (cache + draw), free_bytes("cpu") // 2 // stored)
        if fits < 1:
            raise ConfigError(
                f"not enough memory to sample one row of {length} tokens beside the model",
                "write shorter rows (length), or free memory on the device",
            )
        return min(2 ** (int(fits).bit_length() - 1), _MOST_ROWS.get(weight.device.type, _MOST_ROWS["cpu"]))


def _cache_bytes(causal: Any, positions: int, dtype: torch.dtype) -> int:
    """Bytes of one row's cache: by the heads of attention; measured where it is another, or heads differ by layer."""
    config = causal.config.get_text_config()
    if "past_key_values" in inspect.signature(type(causal).forward).parameters:
        # Gemma 4: each layer has a head width of its own, which is a RuntimeError of transformers.
        with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            return int(2 * config.num_hidden_layers * heads * width * positions * dtype.itemsize)
    at_2, at_3 = (own_cache_bytes(causal, count) for count in (2, 3))
    return int((at_2 + (at_3 - at_2) * max(positions - 2, 0)) * dtype.itemsize // causal.dtype.itemsize)


def tempered(logits_BV: Tensor, temperature: float) -> Tensor:
    """The logits divided by the temperature."""
    # Beyond these limits a draw is arg-max or uniform, and fp32 would turn the temperature into 0 or infinity.
    return logits_BV if temperature == 1.0 else logits_BV / min(max(temperature, 1e-30), 1e30)


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float = 1.0) -> Tensor:
    """One exact draw per row from softmax(logits / temperature), by inverting its cumulative distribution: ids [B].

    `uniform_B` is fp64 in [0, 1). The vocabulary is summed in blocks: one pass over V and two short searches, where
    `torch.multinomial` needs several passes and a random number for each entry of the vocabulary.
    """
    rows, vocabulary = logits_BV.shape
    weight_BV = logits_BV.float()
    weight_BV = weight_BV - weight_BV.amax(dim=-1, keepdim=True)
    weight_BV = tempered(weight_BV, temperature).exp_()
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
    # Rounding can push the search past the last token of positive weight; then that token is the answer.
    last_B1 = (chosen_BC > 0).long().mul_(torch.arange(_BLOCK, device=logits_BV.device)).amax(dim=-1, keepdim=True)
    return (block_B1 * _BLOCK + torch.minimum(inner_B1, last_B1))[:, 0]
