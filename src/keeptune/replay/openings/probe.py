"""What a base predicts after an opening: entropy, concentration, numerical noise, and the likelihood of known text.

Shapes: O openings, G tokens of each, R rows, P positions, V vocabulary, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.modeling import autocast, autocasts, head_of, hidden_states
from keeptune.models.quantized import cast, is_quantized
from keeptune.models.sharded import is_sharded, reshard
from keeptune.system import free_bytes

# Positions after an opening at which noise is read: at SmolLM2's document separator, the first token of a row, it is
# large at the first two and small from the third on.
POSITIONS = 3
_ROWS = 16
# Noise in the output of each linear layer, its draws, and how many times the usual move is too much (lab/LOG.md).
_SHAKE, _DRAWS, _UNSTEADY = 0.03, 3, 3.0
# Beginnings of texts of several kinds, of which only the comparison between openings counts.
_KNOWN = (
    "The history of the city begins in the twelfth century, when",
    "# Introduction\n\nThis guide shows how to install and use the",
    "import os\nimport sys\n\n\ndef main():\n    parser =",
    "Once upon a time there was a little girl who lived in a",
    "Abstract. We study the problem of estimating the mean of a",
    "Q: How do I convert a string to a number?\nA: You can",
    "En el año 1492, el navegante llegó a las islas",
    "In a large bowl, mix the flour, the sugar and the salt",
)
_KNOWN_TOKENS = 6


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The numbers of one candidate, in nats where nothing else is said."""

    entropy: float
    """Mean entropy of the first token after the opening."""
    top: str
    """The likeliest first token, as text."""
    share: float
    """Its probability, as a mean over the openings: the share of rows that will begin with it."""
    noise: list[float] | None
    """KL(float32‖16 bit) of the same weights at the first positions after the opening; None if unknown."""
    known: float
    """Mean −log p of the first tokens of known text after the opening, nats per token."""


class Prober:
    """Probes one base. What is the same for all candidates is settled once: known text, dtypes, a wide copy."""

    def __init__(self, model: nn.Module, tokenizer: Any, seed: int) -> None:
        self.model, self.tokenizer, self.seed = causal_model(model), tokenizer, seed
        self.device = next(self.model.parameters()).device
        known = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in _KNOWN]
        self.known = [ids[:_KNOWN_TOKENS] for ids in known if len(ids) >= _KNOWN_TOKENS]
        self.narrow, self.exact = _both_widths(self.model)

    @torch.no_grad()
    def probe(self, openings: Sequence[Sequence[int]]) -> Probe:
        """The numbers of openings of one length [O, G]."""
        with evaluating(self.model):
            several_OG = torch.tensor([list(opening) for opening in openings])
            first_OV = self._log_probs(self._states(several_OG, 1, exact=True))[:, 0]
            p_V = first_OV.exp().mean(dim=0)
            parts = several_OG.repeat(-(-_ROWS // len(several_OG)), 1).split(_ROWS)
            noise = [self._noise(self.sample(part_RG, POSITIONS - 1)) for part_RG in parts if self.exact is not None]
            known = [self._known(part_RG) for part_RG in parts if self.known]
            return Probe(
                entropy=-(first_OV.exp() * first_OV).nan_to_num().sum(dim=-1).mean().item(),
                top=self.tokenizer.decode([int(p_V.argmax())]),
                share=p_V.max().item(),
                noise=torch.cat(noise).mean(dim=0).clamp(min=0.0).tolist() if noise else None,
                known=torch.cat(known).mean().item() if known else 0.0,
            )

    @torch.no_grad()
    def sample(self, rows_RG: Tensor, tokens: int) -> Tensor:
        """Rows continued with so many tokens of the base's own, on the CPU: int64 [R, G + tokens].

        Raises `ConfigError` if the base predicts NaN.
        """
        generator = torch.Generator().manual_seed(self.seed)
        with evaluating(self.model):
            for _ in range(tokens):
                p_RV = self._log_probs(self._states(rows_RG, 1))[:, 0].exp()
                if not p_RV.isfinite().all():
                    raise ConfigError("the base's predictions are NaN", "check its weights, or load it in float32")
                rows_RG = torch.cat([rows_RG, torch.multinomial(p_RV.cpu(), 1, generator=generator)], dim=1)
        return rows_RG

    @torch.no_grad()
    def least_concentrated(self, openings: Sequence[list[int]], count: int) -> list[list[int]]:
        """So many of the openings, in their order: those after which the likeliest token is least likely."""
        with evaluating(self.model):
            most_O = self._log_probs(self._states(torch.tensor(openings), 1))[:, 0].amax(dim=-1)
        return [openings[place] for place in sorted(most_O.argsort(stable=True)[:count].tolist())]

    @torch.no_grad()
    def steady(self, openings: Sequence[list[int]]) -> list[list[int]]:
        """The openings after which small changes of the model move its prediction about as much as after the others.

        After a few the separator is an attention sink by a hair, and a few steps of training move the next prediction
        by nats (`lab/opening_trials.json`). Random noise in the output of every linear layer finds them. The largest KL
        of three draws counts.
        """
        rows_RP = torch.tensor(openings)
        with evaluating(self.model):
            log_p_RV = self._log_probs(self._states(rows_RP, 1, exact=True))[:, 0]
            moved = []
            for seed in range(_DRAWS):
                with _noisy(self.model if self.exact is None else self.exact, seed):
                    log_q_RV = self._log_probs(self._states(rows_RP, 1, exact=True))[:, 0]
                moved.append((log_p_RV.exp() * (log_p_RV - log_q_RV)).nan_to_num().sum(dim=-1))
        most_R = torch.stack(moved).amax(dim=0)
        return [opening for opening, kept in zip(openings, most_R <= _UNSTEADY * most_R.median(), strict=True) if kept]

    def _noise(self, rows_RP: Tensor) -> Tensor:
        """KL(float32‖16 bit) at the last positions [R, P]."""
        log_p_RPV = self._log_probs(self._states(rows_RP, POSITIONS, exact=True))
        log_q_RPV = self._log_probs(self._states(rows_RP, POSITIONS))
        return (log_p_RPV.exp() * (log_p_RPV - log_q_RPV)).nan_to_num().sum(dim=-1)

    def _known(self, rows_RG: Tensor) -> Tensor:
        """−log p of known text after the openings [R, K]."""
        known_RK = torch.tensor([self.known[row % len(self.known)] for row in range(len(rows_RG))])
        rows_RP = torch.cat([rows_RG, known_RK], dim=1)[:, :-1]
        log_p_RKV = self._log_probs(self._states(rows_RP, known_RK.shape[1], exact=True))
        return -log_p_RKV.gather(2, known_RK[..., None].to(log_p_RKV.device))[..., 0]

    def _states(self, rows_RP: Tensor, last: int, exact: bool = False) -> Tensor:
        """The final hidden states at the last positions [R, last, D]: exact where they can be, or as trained."""
        model, dtype = (self.exact, torch.float32) if exact and self.exact is not None else (self.model, self.narrow)
        with evaluating(model), autocast(self.device, dtype):
            return torch.cat([hidden_states(model, part.to(self.device))[:, -last:] for part in rows_RP.split(_ROWS)])

    def _log_probs(self, states_RPD: Tensor) -> Tensor:
        """Under the base's head, by the same products for every dtype of the states: fp32 [R, P, V]."""
        head = head_of(self.model)
        return head.logits(states_RPD.to(head.weight_VD.dtype)).float().log_softmax(dim=-1)


@contextmanager
def _noisy(model: nn.Module, seed: int) -> Iterator[None]:
    """In the block every linear layer's output has noise of `_SHAKE` of its size, the same in every row."""
    generator = torch.Generator().manual_seed(seed)

    def shaken(layer: nn.Linear) -> RemovableHandle:
        noise_O = _SHAKE * torch.randn(layer.out_features, generator=generator)
        return layer.register_forward_hook(
            lambda _, inputs, out: out + noise_O.to(out) * out.square().mean(dim=-1, keepdim=True).sqrt()
        )

    head = causal_model(model).get_output_embeddings()
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head)
    handles = [shaken(layer) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _both_widths(model: Any) -> tuple[torch.dtype, Any | None]:
    """The 16-bit dtype in which the model computes, and the model that computes in float32; None if there is none."""
    reshard(model)  # what was gathered for a forward pass has the dtype of its products
    weight = next(model.parameters())
    if is_sharded(model) and model.config.distributed_config.fsdp_mixed_precision:
        return torch.bfloat16, None
    if weight.dtype == torch.float32:
        return (torch.bfloat16, model) if autocasts(model) else (torch.float32, None)
    size = 4 * sum(p.numel() for p in model.parameters())
    if is_quantized(model) or 2 * size > free_bytes(weight.device):
        return weight.dtype, None
    return weight.dtype, cast(copy.deepcopy(model), torch.float32)
