"""The classes by which drift is told apart: the base's probability of a token, its place in the window, its kind.

Shapes: N target tokens.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from keeptune.stats import Array

Classes = npt.NDArray[np.int64]

PROBABILITIES = ("below 0.01", "0.01 to 0.1", "0.1 to 0.5", "0.5 to 0.9", "0.9 and above")
POSITIONS = ("1–3", "4–15", "16–63", "64–255", "256 and on")
_PROBABILITY_FROM = (0.01, 0.1, 0.5, 0.9)
_POSITION_FROM = (4, 16, 64, 256)

# How Unicode's names of a script's letters begin, and what to call them.
_SCRIPTS = {
    "LATIN": "Latin letters",
    "GREEK": "Greek",
    "CYRILLIC": "Cyrillic",
    "HEBREW": "Hebrew",
    "ARABIC": "Arabic",
    "DEVANAGARI": "Devanagari",
    "THAI": "Thai",
    "CJK": "Chinese characters",
    "HIRAGANA": "Japanese kana",
    "KATAKANA": "Japanese kana",
    "HANGUL": "Korean",
}
OTHER_SCRIPT = "another script"
DIGITS = "digits"
SYMBOLS = "punctuation and symbols"
WHITE_SPACE = "white space"
PART = "part of a character"
SPECIAL = "special token"
KINDS = (*dict.fromkeys(_SCRIPTS.values()), OTHER_SCRIPT, DIGITS, SYMBOLS, WHITE_SPACE, PART, SPECIAL)

_UNDECODABLE = "\ufffd"


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
    if _UNDECODABLE in text:
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
