"""How far a tuned model's predictions drifted from the base's on a text.

Every number comes from sums over the tokens of a document, so that intervals can resample documents.
Definitions: Marek et al. 2026 (arXiv 2605.26097) for the KL, Kalajdzievski 2024 (arXiv 2401.05605) for L_f.

Shapes: B rows, T positions, N target tokens, D documents, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from keeptune.log import track
from keeptune.models.modeling import autocast, head_of, hidden_states, training_dtype
from keeptune.objective.drift import MEASURES, token_drift
from keeptune.stats import Array, Interval, bootstrap_ratio

__all__ = ["DESCRIPTIONS", "MEASURES", "Drift", "measure", "token_drift"]

_BATCH_TOKENS = 4096

DESCRIPTIONS = {
    "kl": "KL(base‖tuned), nats per token",
    "l_f": "L_f: cross-entropy of the tuned model against the base's arg-max token, nats per token",
    "l_f_rise": "L_f(tuned) − L_f(base), nats per token",
    "soft_ce": "cross-entropy of the tuned model against the base's whole distribution, nats per token",
    "entropy": "the base's entropy, the floor of the soft cross-entropy, nats per token",
    "ce_change": "CE(tuned) − CE(base) on the text itself, nats per token",
    "agreement": "fraction of tokens where both models rank the same token first",
}


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The measures of one text, summed by document."""

    sums_DM: Array
    """fp64 [D, M] in the order of `MEASURES`."""
    tokens_D: Array
    """Target tokens of each document."""
    documents: list[str]
    """Names of the documents."""

    def column(self, measure: str) -> Array:
        """One measure summed by document, fp64 [D]."""
        if measure == "l_f_rise":
            return self.column("l_f") - self.column("l_f_base")
        if measure == "ce_change":
            return self.column("ce") - self.column("ce_base")
        return self.sums_DM[:, MEASURES.index(measure)]

    def interval(self, measure: str) -> Interval:
        """Mean per token of a measure (or of `l_f_rise`, `ce_change`) with its bootstrap interval over documents."""
        return bootstrap_ratio(self.column(measure), self.tokens_D)

    def summary(self) -> dict[str, Any]:
        """For JSON: number of documents and tokens, and each measure with its interval."""
        names = ["l_f_rise", "ce_change", *MEASURES]
        return {
            "documents": len(self.documents),
            "tokens": int(self.tokens_D.sum()),
            "measures": {name: self.interval(name).as_dict() for name in names},
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; `from_dict` reads it back."""
        return {
            "measures": list(MEASURES),
            "sums": self.sums_DM.tolist(),
            "tokens": self.tokens_D.tolist(),
            "documents": self.documents,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Drift:
        """What `as_dict` gave."""
        return cls(
            sums_DM=np.array(content["sums"]), tokens_D=np.array(content["tokens"]), documents=content["documents"]
        )


def measure(
    base: nn.Module,
    tuned: nn.Module,
    rows: Iterable[dict[str, Any]],
    label: str = "Measuring drift",
    tuned_states: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    on_tokens: Callable[[dict[str, Any], Array], None] | None = None,
) -> Drift:
    """Drift of `tuned` from `base` on a text.

    Args:
        base, tuned: causal models over the same vocabulary, put in evaluation mode here. They multiply in the
            dtype that training multiplies in; their logits and all that follows are summed in fp32 or wider.
        rows: as `keeptune.data.encode` gives them: `input_ids`, `labels` (−100: no target), `document`.
        tuned_states: another way to compute the tuned model's final hidden states: (model, input_BT, mask_BT, whose
            T − 1 columns tell which of the input's first T − 1 positions predict a target) → the masked states [N, D].
        on_tokens: is given each row, the longest first, with the measures of its targets, fp64 [N, M].

    Raises:
        ValueError: no row has a target, or the vocabularies differ in size.
    """
    base.eval()
    tuned.eval()
    batches = _batches(rows)
    names = list(dict.fromkeys(row["document"] for batch in batches for row in batch))
    index = {name: position for position, name in enumerate(names)}
    sums_DM = np.zeros((len(names), len(MEASURES)))
    tokens_D = np.zeros(len(names))
    dtype = torch.promote_types(training_dtype(tuned), training_dtype(base))
    with track(label, sum(len(row["input_ids"]) for batch in batches for row in batch), "tokens") as progress:
        for batch in batches:
            input_BT, label_BT = pad_rows(batch)
            mask_BT = label_BT[:, 1:] != -100
            tuned_ND = (tuned_states or target_states)(tuned, input_BT, mask_BT)
            base_ND = target_states(base, input_BT, mask_BT)
            target_N = label_BT[:, 1:][mask_BT].to(tuned_ND.device)
            values_NM = token_drift(tuned_ND, head_of(tuned), base_ND, head_of(base), target_N, dtype).cpu().numpy()
            targets_B = mask_BT.sum(dim=1).numpy()
            owner_N = np.repeat([index[row["document"]] for row in batch], targets_B)
            np.add.at(sums_DM, owner_N, values_NM)
            np.add.at(tokens_D, owner_N, 1)
            if on_tokens:
                for row, of_row_NM in zip(batch, np.split(values_NM, targets_B.cumsum()[:-1]), strict=True):
                    on_tokens(row, of_row_NM)
            progress.advance(sum(len(row["input_ids"]) for row in batch))
    if not tokens_D.sum():
        raise ValueError("no row of the text has a target token")
    keep = tokens_D > 0
    kept_names = [name for name, kept in zip(names, keep, strict=True) if kept]
    return Drift(sums_DM=sums_DM[keep], tokens_D=tokens_D[keep], documents=kept_names)


def _batches(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of like length together, at most `_BATCH_TOKENS` tokens with padding."""
    batches: list[list[dict[str, Any]]] = []
    for row in sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True):
        if not batches or len(batches[-1][0]["input_ids"]) * (len(batches[-1]) + 1) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def pad_rows(batch: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The rows' input ids and labels, int64 [B, T] each."""
    # Padding stands at the right, where causal attention cannot see it: no attention mask, and any id will do.
    width = max(len(row["input_ids"]) for row in batch)
    input_BT = torch.zeros(len(batch), width, dtype=torch.int64)
    label_BT = torch.full((len(batch), width), -100, dtype=torch.int64)
    for position, row in enumerate(batch):
        length = len(row["input_ids"])
        input_BT[position, :length] = torch.tensor(row["input_ids"])
        label_BT[position, :length] = torch.tensor(row["labels"])
    return input_BT, label_BT


@torch.no_grad()
def target_states(model: nn.Module, input_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The final hidden states that predict the targets [N, D]; `mask_BT`, one column shorter, marks them."""
    device = next(model.parameters()).device
    with autocast(device, training_dtype(model)):
        hidden_BTD = hidden_states(model, input_BT[:, :-1].to(device))
    return hidden_BTD[mask_BT.to(device)]
