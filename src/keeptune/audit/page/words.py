"""What pages call things, for someone who meets them for the first time, and how they show numbers and text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keeptune.stats import format_ends, format_interval

# Embeddings, overrides and isolates of Unicode's bidirectional algorithm: text reads as something that it is not.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
# The name of a measure, and what it says.
IN_WORDS = {
    "kl": ("KL", "How far the tuned model’s probabilities for the next token moved from the base’s."),
    "l_f": ("L_f", "How surprised the tuned model is by what the base would have said."),
    "l_f_rise": ("L_f rise", "How much more surprised it is by that than the base itself."),
    "soft_ce": ("soft CE", "How surprised it is by everything that the base could have said."),
    "entropy": ("entropy", "How unsure the base itself is."),
    "ce_change": ("CE change", "How much worse, or below 0 better, it predicts this text as it is written."),
    "agreement": ("agreement", "How often both would say the same next."),
}
UNITS = {
    "kl": "nats per token, 0\u00a0is\u00a0unchanged",
    "l_f_rise": "nats per token, 0\u00a0is\u00a0unchanged",
    "ce_change": "nats per token, above\u00a00\u00a0is\u00a0worse",
    "agreement": "fraction of tokens, 1\u00a0is\u00a0unchanged",
}
TEXTS = {
    "self": "text that the base wrote itself",
    "self-chat": "chats that the base wrote itself",
    "pydoc": "Python’s language reference",
}
FORMATS = {"plain": "plainly", "chat": "in the chat template"}


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


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, noun: str) -> str:
    """`1 document`, `16,321 tokens`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def visible(text: str) -> str:
    """Text in which the characters that turn the order of others around are written out: ⟨U+202E⟩."""
    return _TURNING.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
