"""Whether a decoder has a model's own logits, token by token: tried on rows of random tokens before it samples.

Shapes: B rows, P positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from keeptune.models.guarded import first_line
from keeptune.models.limits import whole_number
from keeptune.models.quantized import depends_on_batch
from keeptune.models.sharded import is_sharded

_ROWS, _POSITIONS, _SEGMENT = 4, 16, 4
# Positions after a sliding window or an attention chunk, and the longest probe that still costs little beside a pool.
_AFTER_WINDOW, _MOST_POSITIONS = 8, 72
_WINDOWS = ("sliding_window", "attention_window_size", "attention_chunk_size", "window_size", "sliding_window_size")
# Relative to the norm of the logits. Rounding to 16 bits moves the logits of the models tried by 0.01, however they are
# computed; where exact logits are at hand, the full forward's own rounding is the measure.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-3, 0.05
_TIMES_OWN_ROUNDING, _MOST = 2.0, 0.3

# What to do about a model that cannot be sampled.
OTHER_TEXT = (
    "use shorter rows (length), a pool of real text (--text, text_pool), or an engine of your own"
    " (sample_pool(engine=...))"
)


class _Steps(Protocol):
    def begin(self, rows: int, length: int) -> None: ...
    def step(self, tokens_B1: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The full forward's logits on random rows, to hold a decoder's against."""

    tokens_BP: Tensor
    logits_BPV: Tensor  # exact where at hand, else of the full forward in the decoder's dtype
    tolerance_P: Tensor  # by position, relative to the norm of the logits

    @classmethod
    @torch.no_grad()
    def of(cls, causal: Any, dtype: torch.dtype, exact: Any | None = None) -> Proof:
        """From the model that decodes in `dtype`, and the same model in a wider dtype, if there is one."""
        tokens_BP = probe_tokens(causal, _positions(causal))
        own_BPV = full_logits(causal, tokens_BP)
        tolerance = _TOLERANCE_16_BIT if dtype.itemsize == 2 or depends_on_batch(causal) else _TOLERANCE
        tolerance_P = torch.full((tokens_BP.shape[1],), tolerance)
        if exact is None:
            return cls(tokens_BP=tokens_BP, logits_BPV=own_BPV, tolerance_P=tolerance_P)
        exact_BPV = full_logits(exact, tokens_BP)
        rounding_P = _by_segment((own_BPV - exact_BPV).norm(dim=-1) / exact_BPV.norm(dim=-1))
        tolerance_P = (_TIMES_OWN_ROUNDING * rounding_P).clamp(_TOLERANCE, _MOST)
        return cls(tokens_BP=tokens_BP, logits_BPV=exact_BPV, tolerance_P=tolerance_P)

    @torch.no_grad()
    def fault(self, decoder: _Steps) -> str | None:
        """How the decoder's logits differ; None if they are the model's up to rounding.

        Of each few positions the median over rows and positions decides: a token may be routed to another expert by a
        rounding error, and at the first positions of a row the 16-bit logits of some models are far off.
        """
        off_BP = torch.empty(self.tokens_BP.shape)
        try:
            decoder.begin(*self.tokens_BP.shape)
            for position, tokens_B1 in enumerate(self.tokens_BP.split(1, dim=1)):
                own_BV = self.logits_BPV[:, position]
                off_BV = decoder.step(tokens_B1).float() - own_BV
                off_BP[:, position] = off_BV.norm(dim=-1) / own_BV.norm(dim=-1)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's code raises when it is called in a way that it does not know
            return f"{type(error).__name__}: {first_line(error)}"
        off_P = _by_segment(off_BP)
        wrong = (~(off_P <= self.tolerance_P)).nonzero()
        if not len(wrong):
            return None
        return f"logits off by {off_P[wrong[0]].item():.2g} of their norm from position {wrong[0].item()}"


def full_logits(causal: Any, tokens_BP: Tensor) -> Tensor:
    """The logits of the full forward, fp32 [B, P, V]; of the class's own forward, without what a trainer patched."""
    forward = causal if is_sharded(causal) else partial(type(causal).forward, causal)  # a call gathers the weights
    logits_BPV: Tensor = forward(input_ids=tokens_BP, use_cache=False).logits
    return logits_BPV.float()


def probe_tokens(causal: Any, positions: int) -> Tensor:
    """Rows of random tokens, the same at every call: int64 [B, P]."""
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (_ROWS, positions), generator=generator).to(causal.device)


def _positions(causal: Any) -> int:
    """How many positions to compare: past the model's shortest window of attention, if that is not far."""
    config = causal.config.get_text_config()
    windows = [value for name in _WINDOWS if (value := whole_number(config, name))]
    past = min(windows, default=0) + _AFTER_WINDOW
    return past if _POSITIONS < past <= _MOST_POSITIONS else _POSITIONS


def _by_segment(off_BP: Tensor) -> Tensor:
    """The median of each few positions [P]."""
    medians = [chunk.median().expand(chunk.shape[1]) for chunk in off_BP.cpu().split(_SEGMENT, dim=1)]
    return torch.cat(medians)
