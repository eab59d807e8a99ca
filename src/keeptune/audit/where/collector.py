"""Drift by class of token, and the worst passages, taken from the one pass in which a text is measured.

The classes: the base's probability of a token, its place in the window, its kind.

Shapes: N target tokens, M measures, D documents, C classes, Q quantities: tokens, KL, CE change.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from keeptune.audit.meter import MEASURES
from keeptune.audit.where.passages import UNDECODABLE, Classes, Passage, WorstPassages
from keeptune.data.rows import IGNORED_LABEL
from keeptune.data.tokens import EncodedRow
from keeptune.stats import Array, Interval, bootstrap_ratio

PROBABILITIES = ("below 0.01", "0.01 to 0.1", "0.1 to 0.5", "0.5 to 0.9", "0.9 and above")
POSITIONS = ("1–3", "4–15", "16–63", "64–255", "256 and on")
_PROBABILITY_FROM = (0.01, 0.1, 0.5, 0.9)
_POSITION_FROM = (4, 16, 64, 256)

# How Unicode's names of a script's letters begin, and what to call them.
_SCRIPTS = {
    "LATIN": "Latin letters",
    **{name.upper(): name for name in ("Greek", "Cyrillic", "Hebrew", "Arabic", "Devanagari", "Thai")},
    "CJK": "Chinese characters",
    **dict.fromkeys(("HIRAGANA", "KATAKANA"), "Japanese kana"),
    "HANGUL": "Korean",
}
OTHER_SCRIPT = "another script"
DIGITS, SYMBOLS, WHITE_SPACE = "digits", "punctuation and symbols", "white space"
PART, SPECIAL = "part of a character", "special token"
KINDS = (*dict.fromkeys(_SCRIPTS.values()), OTHER_SCRIPT, DIGITS, SYMBOLS, WHITE_SPACE, PART, SPECIAL)
GROUPS = {"probability": PROBABILITIES, "position": POSITIONS, "kind": KINDS}


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """One class of the tokens of a text."""

    name: str
    tokens: int
    token_share: float
    kl_share: float | None
    """Its part of the text's KL; None where that is 0."""
    kl: Interval
    """Nats per token, over the documents that have such tokens."""
    ce_change: Interval


@dataclass(frozen=True, kw_only=True)
class WhereText:
    """Where the drift of one text sits."""

    classes: dict[str, list[ClassShare]]
    """For each of `GROUPS` the classes that occur."""
    passages: list[Passage]
    """The worst, the worst first."""


class Where:
    """Collects one text: hand `add` to `measure` as `on_tokens`, then ask for `summary()`.

    It keeps three sums of each class of each document and a few passages, whatever the length of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._kinds = tokenizer, Kinds(tokenizer)
        self._passages = WorstPassages()
        self._sums: dict[str, dict[str, Array]] = {group: {} for group in GROUPS}

    def add(self, row: EncodedRow, values_NM: Array) -> None:
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

    def summary(self) -> WhereText:
        """What was collected."""
        classes = {group: _shares(names, self._sums[group]) for group, names in GROUPS.items()}
        return WhereText(classes=classes, passages=self._passages.decoded(self._tokenizer))


def _shares(names: tuple[str, ...], sums: dict[str, Array]) -> list[ClassShare]:
    sums_DCQ = np.stack(list(sums.values()))
    all_tokens, all_kl, _ = sums_DCQ.sum(axis=(0, 1))
    shares = []
    for index, name in enumerate(names):
        having_DQ = sums_DCQ[sums_DCQ[:, index, 0] > 0, index]
        if not len(having_DQ):
            continue
        tokens_D, kl_D, ce_change_D = having_DQ.T
        shares.append(
            ClassShare(
                name=name,
                tokens=int(tokens_D.sum()),
                token_share=float(tokens_D.sum() / all_tokens),
                kl_share=float(kl_D.sum() / all_kl) if all_kl else None,
                kl=bootstrap_ratio(kl_D, tokens_D, least=0.0),
                ce_change=bootstrap_ratio(ce_change_D, tokens_D),
            )
        )
    return shares


def probability_classes(probability_N: Array) -> Classes:
    """Positions in `PROBABILITIES`; a boundary belongs to the class above it."""
    return np.searchsorted(_PROBABILITY_FROM, probability_N, side="right")


def position_classes(position_N: Classes) -> Classes:
    """Positions in `POSITIONS` of tokens that have so many tokens of their window before them."""
    return np.searchsorted(_POSITION_FROM, position_N, side="right")


class Kinds:
    """The kind of every token of a tokenizer, told once for each that is met."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        special = {index for index, token in added if token.special} | set(tokenizer.all_special_ids)
        self._known = dict.fromkeys(special, KINDS.index(SPECIAL))

    def of(self, ids: list[int]) -> Classes:
        """Positions in `KINDS`, [N]."""
        for index in set(ids) - self._known.keys():
            self._known[index] = KINDS.index(kind(self._tokenizer.decode([index], clean_up_tokenization_spaces=False)))
        return np.array([self._known[index] for index in ids], dtype=np.int64)


def kind(text: str) -> str:
    """The kind of a token that is no special one: by its first letter, else its first digit, else its first symbol.

    A byte-level token that holds part of a character only, decoded as U+FFFD, has a kind of its own.
    """
    if UNDECODABLE in text:
        return PART
    # Wide, ligated and mathematical letters are forms of plain ones.
    characters = unicodedata.normalize("NFKC", text)
    letters = [script for script in map(_script, characters) if script]
    if letters:
        return letters[0]
    if any(character.isnumeric() for character in characters):
        return DIGITS
    # Some decoders leave nothing of a lone space.
    return SYMBOLS if characters.strip() else WHITE_SPACE


def _script(character: str) -> str | None:
    """The script of a letter, or of a mark that belongs to a script's letters; None for any other character."""
    category = unicodedata.category(character)[0]
    if category not in "LM":
        return None
    script = _SCRIPTS.get(unicodedata.name(character, "").partition(" ")[0].partition("-")[0])
    return script or (OTHER_SCRIPT if category == "L" else None)
