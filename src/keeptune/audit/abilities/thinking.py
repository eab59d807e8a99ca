"""Thinking: a reasoning span still there, closed, and an answer behind it. For models that think."""

from __future__ import annotations

from random import Random

from keeptune.audit.abilities.item import Item
from keeptune.audit.abilities.text import words

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
)
"""What opens and closes a reasoning span, in the templates of the families that think."""

ON, OFF = ({"enable_thinking": on, "thinking": on} for on in (True, False))
"""Variables of templates that switch reasoning."""


def items(seed: int) -> tuple[Item, ...]:
    """24 sums with small numbers, the same for the same seed."""
    random = Random(seed)  # noqa: S311 - no secret
    made = []
    for place in range(24):
        first, second = random.randint(2, 30), random.randint(2, 30)
        prompt = f"What is {first} + {second}? Think briefly, then answer."
        made.append(Item(name=f"{place:02d}", kind="reasoning", prompt=prompt, check=thought))
    return tuple(made)


def thought(text: str) -> bool:
    """Whether a text opens one reasoning span before anything else, with words in it, closes it, and then answers."""
    for opening, closing in MARKS:
        if text.lstrip().startswith(opening):
            span, closed, answer = text.lstrip().removeprefix(opening).partition(closing)
            return bool(closed and words(span) and words(answer)) and opening not in span and closing not in answer
    return False


def opened(prompt: str) -> str:
    """The opening mark with which a rendered prompt ends, and what stands behind it; empty where there is none."""
    text = prompt.rstrip()
    return next((prompt[text.rindex(opening) :] for opening, _ in MARKS if text.endswith(opening)), "")


def answered(text: str) -> str:
    """What a text says behind its reasoning; empty where it is not closed."""
    for opening, closing in MARKS:
        if text.lstrip().startswith(opening):
            return text.partition(closing)[2].lstrip()
    return text


def closing_of(opening: str) -> str:
    """The mark that closes a span."""
    return next(closing for mark, closing in MARKS if opening.startswith(mark))


def thinks(template: str) -> bool:
    """Whether a chat template knows reasoning spans."""
    return any(opening in template for opening, _ in MARKS)
