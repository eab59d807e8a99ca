"""What pages call things, for someone who meets them for the first time."""

from __future__ import annotations

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


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, noun: str) -> str:
    """`1 document`, `16,321 tokens`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
