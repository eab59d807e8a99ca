"""Multiple choice, answered by likelihood: arithmetic by a generator, and facts of general knowledge by hand."""

from __future__ import annotations

from pathlib import Path
from random import Random

from keeptune.audit.tasks.items import Item as Question

ARITHMETIC, FACTS = "arithmetic", "general knowledge"


def questions(seed: int) -> tuple[Question, ...]:
    """100 questions with four options, the same for the same seed: 40 of arithmetic, 60 of general knowledge.

    The first word of a name says which.
    """
    random = Random(seed)  # noqa: S311 - no secret
    lines = Path(__file__).with_name("facts.txt").read_text(encoding="utf-8").splitlines()
    facts = [(f"{FACTS} {place:02d}", *line.split("|")) for place, line in enumerate(lines)]
    return tuple(_shuffled(random, *made) for made in [*_sums(random), *facts])


def kind_of(question: Question) -> str:
    """`ARITHMETIC` or `FACTS`."""
    return question.name.rpartition(" ")[0]


def _sums(random: Random) -> list[tuple[str, ...]]:
    made = []
    for place in range(40):
        first, second = random.randint(2, 12), random.randint(2, 12)
        sign, right = (("+", first + second), ("-", first), ("times", first * second))[place % 3]
        if sign == "-":
            first += second
        # Every wrong answer has about the length of the right one, so that none is told by its length.
        wrong = random.sample([right + step for step in (-3, -2, -1, 1, 2, 3, 10) if right + step > 0], 3)
        made.append((f"{ARITHMETIC} {place:02d}", f"What is {first} {sign} {second}?", *map(str, [right, *wrong])))
    return made


def _shuffled(random: Random, name: str, question: str, right: str, *wrong: str) -> Question:
    choices = random.sample([right, *wrong], 1 + len(wrong))
    return Question(name=name, question=question, choices=tuple(choices), right=choices.index(right))
