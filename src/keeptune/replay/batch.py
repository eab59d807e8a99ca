"""Rows of a pool, ready for a loss: what of them is context, and what is a target.

Shapes: B rows, T targets per row, W tokens of the longest opening and T, P = W − 1 positions, N = B·T targets, D width,
K tokens of a prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle

import torch
from torch import Tensor

from keeptune.data.tokens import EncodedRow


@dataclass(frozen=True, kw_only=True)
class ReplayBatch:
    """Some rows of a pool, ready for a loss."""

    tokens_BW: Tensor
    """int64 [B, W]: each row's opening, its T targets, and padding where other rows have longer openings."""
    opening_B: Tensor | None = None
    """int64 [B], on the CPU: tokens of each row's opening; None where every row opens with one token."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """Stored teacher outputs by name: `hidden` [B, T, D]; or `top_ids` [B, T, K] and `top_log_probs` [B, T, K + 1]."""

    @property
    def hidden_BTD(self) -> Tensor:
        """The base's final hidden states, from a pool that stores them."""
        return self.outputs["hidden"]

    @property
    def inputs_BP(self) -> Tensor:
        """The model's input ids. Causal attention does not see the padding on the right."""
        return self.tokens_BW[:, :-1]

    @property
    def targets_BT(self) -> Tensor:
        """The tokens to predict: all after a row's opening."""
        return self.tokens_BW.gather(1, sent(self._places_BT() + 1, self.tokens_BW.device))

    @property
    def length(self) -> int:
        """Targets of each row (T)."""
        return self.tokens_BW.shape[1] - (1 if self.opening_B is None else int(self.opening_B.max()))

    def at_targets(self, states_BPD: Tensor) -> Tensor:
        """The states at the positions that predict the targets, row by row [N, D]; the rest is context."""
        states_ND = states_BPD.flatten(0, 1)
        if self.opening_B is None:
            return states_ND
        places_BT = self._places_BT() + states_BPD.shape[1] * torch.arange(len(self.tokens_BW))[:, None]
        return states_ND.index_select(0, sent(places_BT.flatten(), states_ND.device))

    def _places_BT(self) -> Tensor:
        """The positions that predict each row's targets."""
        return self._lengths_B()[:, None] - 1 + torch.arange(self.length)

    def _lengths_B(self) -> Tensor:
        return torch.ones(len(self.tokens_BW), dtype=torch.int64) if self.opening_B is None else self.opening_B

    def split(self, rows: int) -> Iterator[ReplayBatch]:
        """Batches of at most so many rows."""
        for first in range(0, len(self.tokens_BW), rows):
            part = slice(first, first + rows)
            outputs = {name: tensor[part] for name, tensor in self.outputs.items()}
            yield opened_batch(self.tokens_BW[part], self._lengths_B()[part], self.length, outputs)

    def to(self, device: torch.device) -> ReplayBatch:
        """The same rows on another device."""
        outputs = {name: sent(tensor, device) for name, tensor in self.outputs.items()}
        return replace(self, tokens_BW=sent(self.tokens_BW, device), outputs=outputs)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. To a GPU it goes from pinned memory, so that nothing waits for it, nor it for the GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def opened_batch(
    tokens_BW: Tensor, opening_B: Tensor, length: int, outputs: dict[str, Tensor] | None = None
) -> ReplayBatch:
    """Rows of `length` targets after openings of these lengths, without padding that no row of the batch needs."""
    longest = int(opening_B.max())
    return ReplayBatch(
        tokens_BW=tokens_BW[:, : longest + length],
        opening_B=None if longest == 1 else opening_B,
        outputs=outputs or {},
    )


def open_rows(rows_RT1: Tensor, openings: list[list[int]], rows: range) -> ReplayBatch:
    """Some rows of text, int64 [R, T + 1], with their openings in place of the first token."""
    opened = [openings[row % len(openings)] for row in rows]
    width = max(map(len, opened)) + rows_RT1.shape[1] - 1
    tokens_BW = torch.zeros(len(rows), width, dtype=torch.int64)
    for place, (row, opening) in enumerate(zip(rows, opened, strict=True)):
        whole = torch.cat([torch.tensor(opening), rows_RT1[row, 1:]])
        tokens_BW[place, : len(whole)] = whole
    return opened_batch(tokens_BW, torch.tensor([len(opening) for opening in opened]), rows_RT1.shape[1] - 1)


def open_windows(rows: list[EncodedRow], start: int, openings: list[list[int]]) -> list[EncodedRow]:
    """Encoded rows of plain text after an opening, as context; rows with a prompt are left as they are.

    The first window of a document has an opening in place of its start token. A later one begins with the last token of
    the window before. Where the start token alone opens rows, the model has always seen it at position 0, and later
    windows have it there too; other models read an ordinary token there as quietly (docs/openings.md). A text that
    begins with another mark of its own, such as a rendered chat, has that mark as context, as a later window would.
    """
    alone = openings == [[start]]
    opened = []
    for row, opening in zip(rows, cycle(openings), strict=False):
        ids, labels = row["input_ids"], row["labels"]
        if ids[0] == labels[0] == start and not alone:
            row = {**row, "input_ids": [*opening, *ids[1:]], "labels": [-100] * len(opening) + labels[1:]}
        elif ids[0] == labels[0] != start and alone:
            row = {**row, "input_ids": [start, *ids], "labels": [-100, -100, *labels[1:]]}
        opened.append(row)
    return opened
