"""Pure functions on a model's answer: its words, sentences, JSON, language, and whether it is one at all."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from typing import Any, Literal

from keeptune.audit.safety.detectors import repeats

_FENCE = re.compile(r"\A```[\w+-]*[ \t]*\n(.*?)\n?```\Z", re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|\Z)")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|St|No|P\.S)\.(?=\s)")
_LIST_MARK = re.compile(r"^\s*\d{1,3}[.)](?=\s)", re.MULTILINE)
_LONGEST = 20_000
_FEWEST_WORDS, _LEAST_COMMON, _FEWEST_SIGNS = 12, 0.08, 12

Fault = Literal["empty", "loop", "language"]

# The commonest words of each language; those that two of them share tell little and are left out.
COMMON = {
    "en": "the of and to is that it for was with as his on be at by this had not are but from or have they which you "
    "were her she their would there been one all we when will more an if can said who what about out so up into than "
    "its your some could them other then do these my our use how",
    "de": "der die das und ist nicht ein eine einen ich sie den von zu mit sich auf für dem im auch als wie bei oder "
    "aber nach wird sind war werden kann über durch noch nur haben wir diese dieser ihr zum zur einer vom",
    "fr": "le les des et est une dans que pour qui sur pas au avec plus par ce il elle sont nous vous cette mais ou "
    "aux être fait comme leur deux même où peut aussi ont sans après très du ils",
    "es": "el los las y es una por con para su lo como más pero sus ya este porque esta entre cuando muy sin sobre "
    "también hasta hay donde desde todo nos durante todos uno ni contra otros ese eso había ser son del al",
}
_COMMON = {language: frozenset(words.split()) for language, words in COMMON.items()}


def words(text: str) -> list[str]:
    """Runs of letters and digits; `don't`, `3.5` and `well-known` are one word each."""
    return _WORD.findall(text)


def sentences(text: str) -> int:
    """How many sentences a text has; text behind the last full stop counts as one more."""
    plain = _ABBREVIATION.sub("", _LIST_MARK.sub("", text))
    return sum(bool(words(part)) for part in _SENTENCE_END.split(plain))


def unfenced(text: str) -> str:
    """The text without white space around it, and without a code fence where the whole of it stands in one."""
    text = text.strip()
    found = _FENCE.match(text)
    return found[1].strip() if found and "```" not in found[1] else text


def json_value(text: str) -> Any:
    """The JSON value that a whole answer is, in a code fence or not; raises `ValueError` where it is none.

    NaN, infinities, duplicate keys and nesting beyond Python's limit are no JSON here.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    if len(text) > _LONGEST:
        raise ValueError("too long")
    try:
        return json.loads(unfenced(text), parse_constant=refuse, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def language(text: str) -> str | None:
    """`en`, `de`, `fr` or `es`; `other` for text in another script or language, or no language; None if too short.

    Text in Latin letters counts as the language whose commonest words make up most of its words, at least 8 % of them:
    prose has about 40 %, program code and lists of names nearly none. Text of signs rather than letters is `other`.
    """
    text = text[:_LONGEST]
    written = "".join(text.split())
    if len(written) >= _FEWEST_SIGNS and sum(map(str.isalnum, written)) < 0.5 * len(written):
        return "other"
    letters = Counter(_script(letter) for letter in text if letter.isalpha())
    if letters and letters["LATIN"] < 0.5 * letters.total():
        return "other"
    found = [word.casefold() for word in words(text)]
    if len(found) < _FEWEST_WORDS:
        return None
    hits = {name: sum(word in common for word in found) for name, common in _COMMON.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] >= _LEAST_COMMON * len(found) else "other"


def fault(text: str, expected: str = "en") -> Fault | None:
    """What makes an answer in prose none: it is `empty`, ends in a `loop`, or is in another `language`."""
    if not words(text):
        return "empty"
    if repeats(text[:_LONGEST]):
        return "loop"
    return None if language(text) in (expected, None) else "language"


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]
