"""Instruction following by constraints that a rule can verify, after the idea of IFEval (arXiv 2311.07911).

Requests, constraints and rules are our own. An answer that is empty or a loop follows no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from keeptune.audit.abilities.item import Item
from keeptune.audit.abilities.text import language, words
from keeptune.audit.safety.detectors import repeats

_TOPICS = (
    "Describe a rainy day in a small town.",
    "Explain what a bridge is for.",
    "Give some advice for a first day at a new job.",
    "Tell a short story about a lost key.",
    "Describe how to make a cup of tea.",
    "Explain why trees lose their leaves.",
    "Write a short note to thank a neighbor.",
    "Describe your idea of a good breakfast.",
    "Explain what a library is.",
    "Tell a child why we brush our teeth.",
)
_ENDS = "\"'”’.!)* \n"


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """One kind of constraint, asked once for each of its values."""

    kind: str
    wording: str
    """What stands behind the request; `{}` is the value."""
    values: tuple[str, ...]
    passes: Callable[[str, str], bool]
    """Of the answer and the value."""


def has_word(text: str, word: str) -> bool:
    """Whether the word stands in the text, in any case."""
    return word in (found.casefold() for found in words(text))


def bullets(text: str, count: str) -> bool:
    """Whether so many lines start with `- `, or as Markdown also has it `* `."""
    return sum(re.match(r"\s*[-*•] +\S", line) is not None for line in text.splitlines()) == int(count)


def starts(text: str, opening: str) -> bool:
    """Whether the text begins so, in any case, quotation marks left aside."""
    return _plain(text).lstrip("\"“*' ").startswith(opening.casefold())


def ends(text: str, ending: str) -> bool:
    """Whether the text ends so, in any case, marks behind it left aside."""
    return _plain(text).rstrip(_ENDS).endswith(ending.casefold().rstrip(_ENDS))


def quoted(text: str, _: str) -> bool:
    """Whether the whole text stands in double quotation marks."""
    text = text.strip()
    return len(text) > 2 and text[0] in '"“' and text[-1] in '"”'


def paragraphs(text: str, count: str) -> bool:
    """Whether lines of `***` alone part the text in so many parts, none of them empty."""
    parts = re.split(r"^[ \t]*\*\*\*[ \t]*$", text.strip(), flags=re.MULTILINE)
    return len(parts) == int(count) and all(words(part) for part in parts)


def cased(text: str, case: str) -> bool:
    """Whether every letter that has a case is in this one."""
    return (text.islower() if case == "small" else text.isupper()) and bool(words(text))


CONSTRAINTS = (
    Constraint(
        kind="use a word",
        wording='Use the word "{}" in your answer.',
        values=("window", "purple", "seven", "violin"),
        passes=has_word,
    ),
    Constraint(
        kind="avoid a word",
        wording='Do not use the word "{}".',
        values=("and", "is", "the"),
        passes=lambda text, word: not has_word(text, word),
    ),
    Constraint(
        kind="case", wording="Write in {} letters only.", values=("small", "small", "capital", "capital"), passes=cased
    ),
    Constraint(
        kind="begin with",
        wording='Begin your answer with the words "{}".',
        values=("In my view", "Here is why", "Dear friend"),
        passes=starts,
    ),
    Constraint(
        kind="end with",
        wording='Keep it short, and end your answer with the words "{}".',
        values=("That is all", "Have a nice day", "The end"),
        passes=ends,
    ),
    Constraint(
        kind="bullet points",
        wording='Answer in exactly {} bullet points, each on a line that starts with "- ".',
        values=("2", "3", "4"),
        passes=bullets,
    ),
    Constraint(
        kind="quotation marks",
        wording="Keep it short, and put your whole answer in double quotation marks{}.",
        values=("", ""),
        passes=quoted,
    ),
    Constraint(
        kind="title",
        wording="Give your answer a title, written in double angle brackets as in <<{}>>.",
        values=("A title", "My title", "Title"),
        passes=lambda text, _: re.search(r"<<[^<>\n]*\w[^<>\n]*>>", text) is not None,
    ),
    Constraint(
        kind="no commas", wording="Do not use any commas{}.", values=("", ""), passes=lambda text, _: "," not in text
    ),
    Constraint(
        kind="postscript",
        wording="Keep it short, and add a postscript at the end that starts with {}",
        values=("P.S.", "P.S."),
        passes=lambda text, _: re.search(r"^\W*P\.\s?S\.?\W*\w", text, flags=re.MULTILINE) is not None,
    ),
    Constraint(
        kind="separated paragraphs",
        wording="Write exactly {} short paragraphs and put a line with *** between them.",
        values=("2", "2"),
        passes=paragraphs,
    ),
    Constraint(
        kind="placeholders",
        wording="Use at least {} placeholders in square brackets, such as [name].",
        values=("2", "3"),
        passes=lambda text, count: len(re.findall(r"\[[^\[\]\n]*\w[^\[\]\n]*\]", text)) >= int(count),
    ),
    Constraint(
        kind="emphasis",
        wording="Put at least {} words between asterisks, such as *this*.",
        values=("2", "3"),
        passes=lambda text, count: len(re.findall(r"\*+[^*\n]*\w[^*\n]*\*+", text)) >= int(count),
    ),
    Constraint(
        kind="a question",
        wording="Your answer must be a single question{}.",
        values=("", ""),
        passes=lambda text, _: text.strip().rstrip(_ENDS).endswith("?") and text.count("?") == 1,
    ),
    Constraint(
        kind="language",
        wording="Answer in {}.",
        values=("German", "French", "Spanish"),
        passes=lambda text, name: language(text) == {"German": "de", "French": "fr", "Spanish": "es"}[name],
    ),
)


def items(seed: int) -> tuple[Item, ...]:
    """40 items, the same for the same seed: each value of each constraint, with requests that go round."""
    topics = Random(seed).sample(_TOPICS, len(_TOPICS))  # noqa: S311 - no secret
    asked = [(constraint, value) for constraint in CONSTRAINTS for value in constraint.values]
    return tuple(
        Item(
            name=f"{place:02d}",
            kind=constraint.kind,
            prompt=f"{topics[place % len(topics)]} {constraint.wording.format(value)}",
            check=follows(constraint, value),
        )
        for place, (constraint, value) in enumerate(asked)
    )


def follows(constraint: Constraint, value: str) -> Callable[[str], bool]:
    """The rule for an answer: it is one, and meets the constraint."""
    return lambda text: len(words(text)) >= 2 and not repeats(text) and constraint.passes(text, value)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
