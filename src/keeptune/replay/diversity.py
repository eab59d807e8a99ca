"""How varied the rows of a pool are: a pool that repeats itself protects only what it repeats.

Rows are compared as tokens, and read as text. Only loss-bearing tokens count: what opens a row is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from fontTools import unicodedata

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.vocabulary import document_start
from keeptune.replay.manifest import SAMPLING
from keeptune.replay.pool import ReplayPool
from keeptune.stats import evenly_spaced, wilson

LONGEST = 4
"""n-grams are counted for n from 1 to this."""
UNCLEAR = "unclear"

# Rows of a pool that are read, and those of them whose n-grams are compared: the more rows, the more n-grams recur.
_READ_ROWS, _COMPARED_ROWS = 2048, 256
# Fewer rows, or shorter ones, say too little for a warning.
_FEWEST_ROWS, _FEWEST_TOKENS = 32, 16
# A row is a loop if its 4-grams occurred in it before by more than this share.
_LOOP = 0.5
# A first document of fewer tokens is short.
_SHORT = 8
# Letters of every script.
_NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")
# The least probability of a language.
_SURE = 0.8

Row = Sequence[int]


class Flaw(StrEnum):
    """What makes a pool poor."""

    FIRST = "rows begin alike"
    DUPLICATES = "rows are equal"
    LOOPS = "rows repeat themselves"
    PHRASES = "rows repeat each other"
    SHORT = "documents end at once"


LIMITS: dict[Flaw, float] = {
    Flaw.FIRST: 0.25,
    Flaw.DUPLICATES: 0.05,
    Flaw.LOOPS: 0.1,
    Flaw.PHRASES: 0.7,
    Flaw.SHORT: 0.25,
}
"""Largest share without a warning: of rows, as the lower end of Wilson's 95 % interval, so that few rows warn only of
what is beyond chance; for `PHRASES` of 4-grams that are not the first of their kind.

Chosen beside rows of real text (Python's help, WikiText-2, Verilog, Spanish manuals, 256 rows of 64 and 128 tokens): at
most .09, .02, .02, .61 and 0 there.
"""


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """What `measure_diversity` found."""

    rows: int
    """Rows read."""
    shortest: int
    """Tokens of the shortest row."""
    firsts: int
    """Distinct first tokens."""
    first: str
    """The most common first token, as text."""
    first_share: float
    """Share of the rows that begin with it."""
    compared: int
    """Rows whose n-grams are compared, evenly spaced."""
    distinct: tuple[float, ...]
    """Distinct n-grams per n-gram for n = 1 … 4. No n-gram reaches from a row into the next."""
    duplicates: int
    """Rows that are equal to an earlier row."""
    loops: int
    """Rows in which more than half of the 4-grams occurred before in the same row."""
    scripts: dict[str, float]
    """Share of the letters by Unicode script, the most common first."""
    to_separator: float | None
    """Median number of tokens before the first separator, over the rows that hold one; None if no row does."""
    with_separator: int
    """Rows that hold a separator."""
    short: int
    """Rows whose first separator stands before the ninth token."""


def measure_diversity(rows: Sequence[Row], tokenizer: Any, separators: frozenset[int]) -> Diversity:
    """The diversity of some rows.

    Args:
        rows: the loss-bearing tokens of each row; one row or more, and one token or more in each.
        separators: ids that end a document or a turn.
    """
    firsts = Counter(row[0] for row in rows)
    first, times = firsts.most_common(1)[0]
    compared = [rows[place] for place in evenly_spaced(len(rows), _COMPARED_ROWS)]
    places = (next((place for place, token in enumerate(row) if token in separators), None) for row in rows)
    before = [place for place in places if place is not None]
    return Diversity(
        rows=len(rows),
        shortest=min(map(len, rows)),
        firsts=len(firsts),
        first=tokenizer.decode([first]),
        first_share=times / len(rows),
        compared=len(compared),
        distinct=tuple(_distinct(compared, n) for n in range(1, LONGEST + 1)),
        duplicates=len(rows) - len({tuple(row) for row in rows}),
        loops=sum(1 - _distinct([row], LONGEST) > _LOOP for row in rows),
        scripts=_scripts(_texts(rows, tokenizer)),
        to_separator=float(median(before)) if before else None,
        with_separator=len(before),
        short=sum(place <= _SHORT for place in before),
    )


def flaws(found: Diversity) -> dict[Flaw, float]:
    """What makes a pool poor, with the share that is beyond its limit; nothing for few rows or short ones."""
    if found.rows < _FEWEST_ROWS or found.shortest < _FEWEST_TOKENS:
        return {}
    counts = {
        Flaw.FIRST: round(found.first_share * found.rows),
        Flaw.DUPLICATES: found.duplicates,
        Flaw.LOOPS: found.loops,
        Flaw.SHORT: found.short,
    }
    poor = {
        flaw: count / found.rows
        for flaw, count in counts.items()
        if (low := wilson(count, found.rows).low) is not None and low > LIMITS[flaw]
    }
    phrases = 1 - found.distinct[-1]
    return poor | ({Flaw.PHRASES: phrases} if phrases > LIMITS[Flaw.PHRASES] else {})


def pool_rows(pool: ReplayPool) -> list[list[int]]:
    """The loss-bearing tokens of at most 2048 rows of a pool, evenly spaced."""
    chosen = evenly_spaced(pool.rows, _READ_ROWS)
    return [pool.tokens_of(row)[len(pool.settings.opening_of(row)) :].tolist() for row in chosen]


def separators(pool: ReplayPool, tokenizer: Any) -> frozenset[int]:
    """The ids that end a document or a turn: the document start, which stands between documents, and the EOS."""
    settings, begins = pool.settings, list[list[int]]()
    if settings.prompts == "mixed":
        begins = settings.openings[1::2]  # of chats; those of documents may begin with text
    elif settings.opening in ("chat", "given"):
        begins = settings.openings
    found = {settings.start_token, *(opening[0] for opening in begins), tokenizer.eos_token_id}
    with suppress(ConfigError):  # the tokenizer has no document start
        found.add(document_start(tokenizer)[0])
    return frozenset(found - {None})


def check_diversity(pool: ReplayPool, tokenizer: Any) -> None:
    """Warn of a poor pool, with the remedy. Small pools are not read."""
    if pool.rows < _FEWEST_ROWS or pool.settings.length < _FEWEST_TOKENS:
        return
    found = measure_diversity(pool_rows(pool), tokenizer, separators(pool, tokenizer))
    if poor := flaws(found):
        named = (f"{_describe(flaw, found, share)} (at most {LIMITS[flaw]:.0%})" for flaw, share in poor.items())
        logger.warning(f"the rows of {pool.folder} are little varied: {'; '.join(named)}. {_remedy(pool)}")


def describe(found: Diversity, languages: dict[str, float] | None) -> list[str]:
    """The findings, a line each."""
    compared = "" if found.compared == found.rows else f" in {found.compared} rows"
    distinct = ", ".join(f"{share:.2f}" for share in found.distinct)
    lines = [
        f"first tokens: {found.firsts} distinct in {found.rows} rows; {found.first_share:.0%} are {found.first!r}",
        f"distinct n-grams per n-gram, n = 1 to {LONGEST}{compared}: {distinct}",
        f"equal rows: {found.duplicates}; rows that repeat themselves: {found.loops}",
        f"scripts, of the letters: {_listed(found.scripts)}",
        "languages, of the rows: "
        + ("not identified (pip install 'keeptune[languages]')" if languages is None else _listed(languages)),
    ]
    if found.to_separator is None:
        return [*lines, "separators: none"]
    ends = f"after {found.to_separator:g} tokens (median)"
    return [*lines, f"separators: in {found.with_separator} rows, the first {ends}"]


def languages_of(rows: Sequence[Row], tokenizer: Any) -> dict[str, float] | None:
    """Share of at most 256 rows by language (ISO 639), the most common first; None if py3langid is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 — an extra, and slow to load
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    chosen = [rows[place] for place in evenly_spaced(len(rows), _COMPARED_ROWS)]
    found = [identifier.classify(text) for text in _texts(chosen, tokenizer)]
    return _shares(Counter(name if sure >= _SURE else UNCLEAR for name, sure in found))


def _describe(flaw: Flaw, found: Diversity, share: float) -> str:
    """One flaw, with its number."""
    return {
        Flaw.FIRST: f"{share:.0%} of the rows begin with {found.first!r}",
        Flaw.DUPLICATES: f"{share:.0%} of the rows are equal to another",
        Flaw.LOOPS: f"{share:.0%} of the rows repeat themselves",
        Flaw.PHRASES: f"{share:.0%} of the 4-grams occurred before",
        Flaw.SHORT: f"in {share:.0%} of the rows the first document ends within {_SHORT} tokens",
    }[flaw]


def _remedy(pool: ReplayPool) -> str:
    settings = pool.settings
    if settings.text_sha256:
        return "Use a text of more, and more varied, documents."
    if settings.sampling != SAMPLING:
        return f"Sample at temperature 1 (now: {settings.sampling}), or use real text (keeptune replay --text)."
    return "Start rows otherwise (keeptune replay --opening, --document-start or --prompts mixed), or use --text."


def _distinct(rows: Iterable[Row], n: int) -> float:
    """Distinct n-grams per n-gram; 1 if there is none."""
    grams = [gram for row in rows for gram in zip(*(row[start:] for start in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _texts(rows: Sequence[Row], tokenizer: Any) -> list[str]:
    texts: list[str] = tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)
    return texts


def _scripts(texts: Sequence[str]) -> dict[str, float]:
    letters: Counter[str] = Counter()
    for character, times in Counter("".join(texts)).items():
        if character.isalpha() and (script := unicodedata.script(character)) not in _NO_SCRIPT:
            letters[unicodedata.script_name(script)] += times
    return _shares(letters)


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: times / counts.total() for name, times in counts.most_common()}


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "none"
