"""How pages, tables and the terminal show numbers and text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from keeptune.stats import format_ends, format_interval

# Embeddings, overrides and isolates of Unicode's bidirectional algorithm: text reads as something that it is not.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NAMED = 3


def shown_number(value: float | None, form: str = ".4f") -> str:
    """−0.0211, with a real minus and a thin space before per cent; a zero has no sign; None is a dash."""
    if value is None:
        return "–"
    digits = f"{value:{form}}"
    if not any(digit in "123456789" for digit in digits.partition("e")[0]):
        digits = digits.lstrip("+-")
    return digits.replace("-", "−").replace("%", "\u202f%")


def shown_ends(given: Mapping[str, Any], form: str = ".4f") -> str:
    """`[low, high]`, or nothing for an interval that is missing."""
    return format_ends(given["low"], given["high"], form, shown_number)


def interval_text(given: Mapping[str, Any], form: str = ".4f") -> str:
    """`0.268 [0.219, 0.317]`."""
    return format_interval(given, form, number=shown_number)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def named(names: Sequence[str], most: int = _NAMED) -> str:
    """A list of which the end is counted: `a, b, c and 4 more`."""
    more = len(names) - most
    return listed([*names[:most], f"{more} more"] if more > 0 else names)


def counted(number: int, noun: str) -> str:
    """`1 document`, `16,321 tokens`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def flaws_in_words(flaws: Sequence[str], noun: str) -> str:
    """How many rows of a source were left out, and why the first of them; nothing where none was."""
    return f" {counted(len(flaws), 'row')} of the source hold no {noun}, the first: {flaws[0]}." if flaws else ""


def repair_command(base: str, tuned: str, kl: float) -> str:
    """How to give back most of a drift: `keeptune repair` with a quarter of its KL as the budget."""
    return shlex.join(["keeptune", "repair", base, tuned, "--budget", f"{kl / 4:.1g}"])


def visible(text: str) -> str:
    """Text in which the characters that turn the order of others around are written out: ⟨U+202E⟩."""
    return _TURNING.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def short_names(sources: Sequence[str]) -> list[str]:
    """Each source by the fewest last parts of its path that no other source ends in.

    `["runs/a/model", "runs/b/model"]` → `["a/model", "b/model"]`; sources that are equal stay equal, in full.
    """
    parts = [PurePath(source).parts or (source,) for source in sources]
    names = []
    for own, source in zip(parts, sources, strict=True):
        tails = ["/".join(own[-count:]) for count in range(1, len(own) + 1)]
        others = [["/".join(other[-count:]) for other in parts] for count in range(1, len(own) + 1)]
        names.append(next((tail for tail, of in zip(tails, others, strict=True) if of.count(tail) == 1), source))
    return names
