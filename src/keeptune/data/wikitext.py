"""WikiText as published (one file of tokenized articles), turned back into articles of ordinary text."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A title has one equals sign on each side, a section heading two or more.
_TITLE = re.compile(r"^ = ([^=].*[^=]|[^=]) = $", re.MULTILINE)
_REPAIRS = [
    (re.compile(pattern), joined)
    for pattern, joined in (
        (r" @([-,.])@ ", r"\1"),
        (r" ([.,;:?!%)\]}])", r"\1"),
        (r"([(\[{$£€#]) ", r"\1"),
        (r" (n't|'(?:s|m|d|re|ve|ll))\b", r"\1"),
        (r'" ([^"\n]*?) "', r'"\1"'),
        (r"(?<!\w)' ([^'\n]*?) '", r"'\1'"),
        (r"(\w) ' (?=\w|$)", r"\1' "),
        (r" ([/–—]) ", r"\1"),
        (r"(?m)^ | $", ""),
    )
]


def articles(text: str) -> Iterator[tuple[str, str]]:
    """Title and text of every article of a WikiText file; words that the corpus replaced stay `<unk>`."""
    titles = list(_TITLE.finditer(text))
    for index, title in enumerate(titles):
        end = titles[index + 1].start() if index + 1 < len(titles) else len(text)
        yield title[1], detokenized(text[title.start() : end])


def detokenized(text: str) -> str:
    """The text without the spaces and marks (`@-@`) that WikiText's tokenization inserted."""
    for pattern, joined in _REPAIRS:
        text = pattern.sub(joined, text)
    return text.strip() + "\n"
