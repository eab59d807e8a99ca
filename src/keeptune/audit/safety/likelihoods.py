"""How likely a model goes on with given texts, after many prompts at once.

Shapes: P prompts, C continuations of a prompt, B rows, T positions, N scored tokens, D width, M measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import rendered, shared_prefix, tokenised
from keeptune.audit.meter import MEASURES, batched
from keeptune.errors import Diverged
from keeptune.log import track
from keeptune.models.modeling import autocast, head_of, hidden_states, training_dtype
from keeptune.objective.drift import token_drift
from keeptune.stats import Array

_BATCH_TOKENS = 4096


@dataclass
class _Row:
    """Tokens that a model reads once, and what is asked of it there."""

    ids: list[int]
    asked: list[tuple[int, int, int, int]]
    """(position, next token, prompt, continuation) of every scored token."""


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    continuations: Sequence[str],
    label: str,
) -> Array:
    """Log-likelihood of each continuation after each prompt, in nats, summed over its tokens: fp64 [P, C].

    Prompt and continuation are tokenised together, and a token that spans the boundary belongs to the continuation.
    Continuations that begin alike share one pass: with few words each, most cost nothing beyond the prompt. The model
    multiplies in the dtype that training multiplies in, logits are summed in fp32 or wider, as in `measure`.

    Args:
        prompts: put to the model as `rendered` does.

    Raises:
        Diverged: a log-likelihood is NaN or infinite.
    """
    rows = [row for place, prompt in enumerate(prompts) for row in _rows(tokenizer, prompt, continuations, place)]
    score_PC = np.zeros((len(prompts), len(continuations)))
    with track(label, len(rows), "rows") as progress:
        for batch in batched(rows, lambda row: len(row.ids), _BATCH_TOKENS):
            owners = [asked[2:] for row in batch for asked in row.asked]
            np.add.at(score_PC, tuple(np.array(owners).T), _scored(model, batch).cpu().numpy())
            progress.advance(len(batch))
    if not np.isfinite(score_PC).all():
        raise Diverged(
            "a model's predictions after a prompt are no numbers",
            "a checkpoint holds NaN or infinite weights, or overflows: audit an earlier one",
        )
    return score_PC


def _rows(tokenizer: PreTrainedTokenizerBase, prompt: str, continuations: Sequence[str], place: int) -> list[_Row]:
    """The fewest rows in which every token of every continuation follows what it has to follow."""
    text = rendered(tokenizer, prompt)
    prompt_ids, *whole = tokenised(tokenizer, [text, *(text + continuation for continuation in continuations)])
    rows: list[_Row] = []
    for number in sorted(range(len(whole)), key=lambda number: len(whole[number]), reverse=True):
        ids = whole[number]
        same = shared_prefix(prompt_ids, ids)
        row = next((row for row in rows if row.ids[: len(ids) - 1] == ids[:-1]), None)
        if row is None:
            row = _Row(ids[:-1], [])
            rows.append(row)
        row.asked += [(position - 1, ids[position], place, number) for position in range(same, len(ids))]
    return rows


def _scored(model: PreTrainedModel, batch: list[_Row]) -> Tensor:
    """The log-probability of every token that the rows ask for, in their order: fp64 [N]."""
    device = next(model.parameters()).device
    # Padding stands at the right, where causal attention cannot see it.
    input_BT = torch.zeros(len(batch), max(len(row.ids) for row in batch), dtype=torch.int64)
    for place, row in enumerate(batch):
        input_BT[place, : len(row.ids)] = torch.tensor(row.ids)
    with autocast(device, training_dtype(model)):
        hidden_BTD = hidden_states(model, input_BT.to(device))
    rows = [place for place, row in enumerate(batch) for _ in row.asked]
    positions, targets = zip(*((asked[0], asked[1]) for row in batch for asked in row.asked), strict=True)
    hidden_ND, head = hidden_BTD[rows, positions], head_of(model)
    target_N = torch.tensor(targets, device=device)
    value_NM = token_drift(hidden_ND, head, hidden_ND, head, target_N, training_dtype(model))
    return -value_NM[:, MEASURES.index("ce")]
