"""How far a tuned model's predictions drifted from the base's on a text.

Every number is a sum over the tokens of a document, so that confidence intervals can resample documents.
Quantized output layers are read by the model's own logits, all others by hidden states and heads.
Definitions: Marek et al. 2026 (arXiv 2605.26097) for the KL, Kalajdzievski 2024 (arXiv 2401.05605) for L_f.

Shapes: B rows, T positions, N target tokens, D documents, M measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import text_documents
from keeptune.data.encode import encode
from keeptune.data.rows import MAX_LENGTH, SEED
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.modeling import autocast, head_of, hidden_states, training_dtype
from keeptune.models.quantized import has_packed_head, settle
from keeptune.models.vocabulary import document_start
from keeptune.objective import Head
from keeptune.objective.drift import MEASURES, token_drift
from keeptune.replay.batch import open_windows
from keeptune.replay.openings import find_openings
from keeptune.report.codec import JsonValue
from keeptune.stats import Array, Interval, bootstrap_ratio

__all__ = ["MEASURES", "Drift", "measure", "token_drift"]

# Four times as many take 250 MB more on SmolLM2 and save little time.
BATCH_TOKENS = 1024
# Where the logits of all tokens have to be held.
_LOGIT_TOKENS = 512

Row = TypeVar("Row")
States = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift measures of one text, summed by document."""

    sums_DM: Array
    """fp64 [D, M] in the order of `MEASURES`."""
    tokens_D: Array
    """Number of target tokens of each document."""
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
        """Mean per token of a measure (or of `l_f_rise`, `ce_change`), with a bootstrap interval over documents."""
        least = -math.inf if measure in ("l_f_rise", "ce_change") else 0.0
        most = 1.0 if measure == "agreement" else math.inf
        return bootstrap_ratio(self.column(measure), self.tokens_D, least=least, most=most)

    def summary(self) -> dict[str, Any]:
        """For JSON: the numbers of documents and tokens, and each measure with its interval."""
        names = ["l_f_rise", "ce_change", *MEASURES]
        return {
            "documents": len(self.documents),
            "tokens": int(self.tokens_D.sum()),
            "measures": {name: self.interval(name).as_dict() for name in names},
        }

    def as_dict(self) -> dict[str, JsonValue]:
        """Everything, for JSON; `from_dict` reads it back."""
        return {
            "measures": list(MEASURES),
            "sums": self.sums_DM.tolist(),
            "tokens": self.tokens_D.tolist(),
            "documents": self.documents,
        }

    @classmethod
    def from_dict(cls, content: dict[str, JsonValue]) -> Drift:
        """The inverse of `as_dict`."""
        documents = cast(list[str], content["documents"])
        return cls(sums_DM=np.array(content["sums"]), tokens_D=np.array(content["tokens"]), documents=documents)


def measure(
    base: nn.Module,
    tuned: nn.Module,
    texts: Iterable[EncodedRow] | Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int = MAX_LENGTH,
    dtype: torch.dtype | None = None,
    label: str = "Measuring drift",
    tuned_states: States | None = None,
    on_tokens: Callable[[EncodedRow, Array], None] | None = None,
) -> Drift:
    """Drift of `tuned` from `base` on a text.

    Args:
        base, tuned: causal models with the same vocabulary; they are put in evaluation mode.
        texts: plain texts, one string a document, or encoded rows as from `keeptune.data.encode`: `input_ids`, `labels`
            (−100: no target), `document`.
        tokenizer: the base's tokenizer; needed for plain texts.
        max_length: plain texts are cut into windows of at most this many tokens. The first window of a text begins
            after an opening, which is context; see `keeptune.replay.openings`.
        dtype: dtype of the matrix products; default the dtype in which training multiplies. Logits and all sums are
            fp32 or wider.
        label: shown beside the progress.
        tuned_states: computes the tuned model's final hidden states in another way: (model, input_BT, mask_BT) → the
            masked states [N, D]. `mask_BT` has T − 1 columns and marks the positions that predict a target.
        on_tokens: called with each row, the longest first, and the measures of its targets, fp64 [N, M].

    Raises:
        ConfigError: plain texts without a tokenizer.
        ValueError: no row has a target, or the vocabularies differ in size.
    """
    for model in (base, tuned):
        settle(model.eval())
    tokens = _LOGIT_TOKENS if has_packed_head(base) or has_packed_head(tuned) else BATCH_TOKENS
    batches = batched(_encoded(base, texts, tokenizer, max_length), lambda row: len(row["input_ids"]), tokens)
    names = list(dict.fromkeys(row["document"] for batch in batches for row in batch))
    index = {name: position for position, name in enumerate(names)}
    sums_DM = np.zeros((len(names), len(MEASURES)))
    tokens_D = np.zeros(len(names))
    states = tuned_states or partial(target_states, dtype=dtype)
    with track(label, sum(len(row["input_ids"]) for batch in batches for row in batch), "tokens") as progress:
        for batch in batches:
            for row, values_NM in zip(batch, _values(base, tuned, batch, states, dtype), strict=True):
                np.add.at(sums_DM, np.full(len(values_NM), index[row["document"]]), values_NM)
                tokens_D[index[row["document"]]] += len(values_NM)
                if on_tokens:
                    on_tokens(row, values_NM)
            progress.advance(sum(len(row["input_ids"]) for row in batch))
    if not tokens_D.sum():
        raise ValueError("no row of the text has a target token")
    with_targets = tokens_D > 0
    documents = [name for name, keep in zip(names, with_targets, strict=True) if keep]
    return Drift(sums_DM=sums_DM[with_targets], tokens_D=tokens_D[with_targets], documents=documents)


def _values(
    base: nn.Module, tuned: nn.Module, batch: list[EncodedRow], states: States, dtype: torch.dtype | None
) -> list[Array]:
    """The measures at the targets of each row, fp64 [N, M]."""
    head_dtype = dtype or torch.promote_types(training_dtype(tuned), training_dtype(base))
    input_BT, label_BT = pad_rows(batch)
    mask_BT = label_BT[:, 1:] != -100
    tuned_ND = states(tuned, input_BT, mask_BT)
    base_ND = target_states(base, input_BT, mask_BT, dtype)
    target_N = label_BT[:, 1:][mask_BT].to(tuned_ND.device)
    values_NM = token_drift(tuned_ND, read_head(tuned), base_ND, read_head(base), target_N, head_dtype).cpu().numpy()
    return np.split(values_NM, mask_BT.sum(dim=1).numpy().cumsum()[:-1])


def _encoded(
    base: nn.Module,
    texts: Iterable[EncodedRow] | Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int,
) -> list[EncodedRow]:
    """Encoded rows as they are; plain texts encoded, each after an opening of the base."""
    if isinstance(texts, str):
        raise ConfigError("texts is one string, not a list of texts", "give a list: texts=[text]")
    given: list[Any] = list(texts)
    if not given or not isinstance(given[0], str):
        return given
    if tokenizer is None:
        raise ConfigError("plain texts need a tokenizer", "give the base's: tokenizer=keeptune.load_tokenizer(MODEL)")
    start, _ = document_start(tokenizer)
    documents = text_documents(given)
    rows = list(encode(documents, tokenizer, max_length=max_length, document_start=start, append_eos=False))
    return open_windows(rows, start, find_openings(base, tokenizer, length=max_length - 1, seed=SEED).ids)


def batched(rows: Iterable[Row], length: Callable[[Row], int], tokens: int) -> list[list[Row]]:
    """Rows of similar length together, at most `tokens` tokens with padding."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=length, reverse=True):
        if not batches or length(batches[-1][0]) * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def pad_rows(batch: list[EncodedRow]) -> tuple[Tensor, Tensor]:
    """The rows' input ids and labels, int64 [B, T] each, right-padded."""
    # Causal attention does not see padding on the right: no attention mask is needed, and any id may pad.
    width = max(len(row["input_ids"]) for row in batch)
    input_BT = torch.zeros(len(batch), width, dtype=torch.int64)
    label_BT = torch.full((len(batch), width), -100, dtype=torch.int64)
    for position, row in enumerate(batch):
        length = len(row["input_ids"])
        input_BT[position, :length] = torch.tensor(row["input_ids"])
        label_BT[position, :length] = torch.tensor(row["labels"])
    return input_BT, label_BT


@torch.no_grad()
def target_states(model: nn.Module, input_BT: Tensor, mask_BT: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The final hidden states that predict the targets [N, D]; `mask_BT`, one column shorter, marks them.

    Of a model whose output layer is quantized they are the logits [N, V], as `read_head` says by None. `dtype` is that
    of the products; default the dtype in which training multiplies.
    """
    device = next(model.parameters()).device
    with autocast(device, dtype or training_dtype(model)):
        hidden_BTD = final_states(model, input_BT[:, :-1].to(device))
    return hidden_BTD[mask_BT.to(device)]


def final_states(model: nn.Module, input_BT: Tensor) -> Tensor:
    """The final hidden states [B, T, D]; the logits [B, T, V] of a model whose output layer is quantized."""
    if has_packed_head(model):
        logits_BTV: Tensor = model(input_ids=input_BT, use_cache=False).logits
        return logits_BTV.float()
    return hidden_states(model, input_BT)


def read_head(model: nn.Module) -> Head | None:
    """The output layer that makes logits of `final_states`; None where they are logits already."""
    return None if has_packed_head(model) else head_of(model)
