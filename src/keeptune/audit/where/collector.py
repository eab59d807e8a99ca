"""Drift by class of token, and the worst passages, taken from the one pass in which a text is measured.

Shapes: N target tokens, M measures, D documents, C classes, Q quantities: tokens, KL, CE change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from keeptune.audit.meter import MEASURES
from keeptune.audit.verdict import has_evidence
from keeptune.audit.where.classes import (
    KINDS,
    POSITIONS,
    PROBABILITIES,
    Classes,
    Kinds,
    position_classes,
    probability_classes,
)
from keeptune.audit.where.passages import WorstPassages, worst
from keeptune.data.rows import IGNORED_LABEL
from keeptune.stats import Array, bootstrap_ratio

GROUPS = {"probability": PROBABILITIES, "position": POSITIONS, "kind": KINDS}


class Where:
    """Collects one text: hand `add` to `measure` as `on_tokens`, then ask for `summary()`.

    It keeps three sums of each class of each document and a few passages, whatever the length of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._kinds = tokenizer, Kinds(tokenizer)
        self._passages = WorstPassages()
        self._sums: dict[str, dict[str, Array]] = {group: {} for group in GROUPS}

    def add(self, row: dict[str, Any], values_NM: Array) -> None:
        """Take in one row and the measures of its targets, fp64 [N, M] in the order of `MEASURES`."""
        kl_N, ce_N, ce_base_N = (values_NM[:, MEASURES.index(name)] for name in ("kl", "ce", "ce_base"))
        position_N: Classes = np.flatnonzero(np.array(row["labels"][1:]) != IGNORED_LABEL) + 1
        quantity_NQ = np.stack([np.ones(len(kl_N)), kl_N, ce_N - ce_base_N], axis=1)
        classes = {
            "probability": probability_classes(np.exp(-ce_base_N)),
            "position": position_classes(position_N),
            "kind": self._kinds.of([row["input_ids"][position] for position in position_N]),
        }
        for group, class_N in classes.items():
            sums_CQ = self._sums[group].setdefault(row["document"], np.zeros((len(GROUPS[group]), 3)))
            np.add.at(sums_CQ, class_N, quantity_NQ)
        self._passages.add(row["document"], row["input_ids"], position_N, kl_N)

    def summary(self) -> dict[str, Any]:
        """For JSON: `classes`, for each of `GROUPS` the classes that occur, and `passages`, the worst.

        Returns:
            Of each class its `tokens`; `token_share` and `kl_share`, its shares of all tokens and of the whole KL
            (None where that is 0); `kl` and `ce_change`, nats per token, with intervals over the documents that have
            such tokens; `enough_evidence`, whether there are documents enough for them.
        """
        classes = {group: _shares(names, self._sums[group]) for group, names in GROUPS.items()}
        return {"classes": classes, "passages": self._passages.decoded(self._tokenizer)}


def where_section(
    collected: dict[str, dict[str, Any]], layers: dict[str, Any], continuations: list[dict[str, str]]
) -> dict[str, Any]:
    """The part of a report that says where the drift sits, for JSON.

    Args:
        collected: `Where.summary()` of each text, by its name.
        layers: as `layer_profile` gives them.
        continuations: as `continuations` gives them.

    Returns:
        `texts`, each with its `classes`; `passages`, the worst of all texts, with their `text`; the other two as given.
    """
    passages = [{"text": name, **passage} for name, content in collected.items() for passage in content["passages"]]
    return {
        "texts": {name: {"classes": content["classes"]} for name, content in collected.items()},
        "passages": worst(passages),
        "layers": layers,
        "continuations": continuations,
    }


def _shares(names: tuple[str, ...], sums: dict[str, Array]) -> list[dict[str, Any]]:
    sums_DCQ = np.stack(list(sums.values()))
    all_tokens, all_kl, _ = sums_DCQ.sum(axis=(0, 1))
    shares = []
    for index, name in enumerate(names):
        having_DQ = sums_DCQ[sums_DCQ[:, index, 0] > 0, index]
        if not len(having_DQ):
            continue
        tokens_D, kl_D, ce_change_D = having_DQ.T
        kl = bootstrap_ratio(kl_D, tokens_D).as_dict()
        shares.append(
            {
                "class": name,
                "tokens": int(tokens_D.sum()),
                "token_share": float(tokens_D.sum() / all_tokens),
                "kl_share": float(kl_D.sum() / all_kl) if all_kl else None,
                "kl": kl,
                "ce_change": bootstrap_ratio(ce_change_D, tokens_D).as_dict(),
                "enough_evidence": has_evidence(kl),
            }
        )
    return shares
