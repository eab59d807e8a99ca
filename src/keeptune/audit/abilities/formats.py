"""Format: JSON on request, an exact form, a limit of length. Own requests; a rule tells whether the form is right.

For a model without a chat template the requests that two examples can show are asked as text to be continued.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from keeptune.audit.abilities.item import Check, Item
from keeptune.audit.abilities.text import json_value, sentences, words

JSON, EXACT, LENGTH = "valid JSON", "exact form", "length limit"

_PEOPLE = ("Anna", "Omar", "Mei", "Carlos", "Ingrid", "Kofi", "Lucia", "Ivan", "Priya", "Tom")
_CITIES = ("Oslo", "Lima", "Cairo", "Rome", "Delhi", "Quito", "Bern", "Accra", "Hanoi", "Porto")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    "September",
    "October",
    "November",
)
_FRUIT = ("apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum")
_TOPICS = ("cats", "rain", "bread", "the moon", "trains", "music", "winter", "bees", "rivers", "sleep", "tea", "maps")
_YES_NO = ("Is the sun hot?", "Do cows fly?", "Can fish swim?")
_ONE_WORD = ("What is the opposite of hot?", "What do bees make?", "Which animal barks?", "What is the color of grass?")
_LISTS = ("three colors", "three animals", "three countries", "three tools", "three sports")
_JSON_ONLY = "Answer with the JSON only, no other text."


class _Made(NamedTuple):
    prompt: str
    check: Check
    completion: str | None = None


def items(seed: int) -> tuple[Item, ...]:
    """42 items, the same for the same seed: 14 of each kind."""
    random = Random(seed)  # noqa: S311 - no secret
    made = [(kind, one) for kind, make in ((JSON, _json), (EXACT, _exact), (LENGTH, _length)) for one in make(random)]
    return tuple(
        Item(name=f"{place:02d}", kind=kind, one_line=True, **one._asdict()) for place, (kind, one) in enumerate(made)
    )


def object_with(**expected: Any) -> Check:
    """A JSON object with exactly these keys and values; the case of text is left aside, its type is not."""

    def check(text: str) -> bool:
        found = _parsed(text)
        return isinstance(found, dict) and _folded(found) == _folded(expected)

    return check


def array_of(length: int) -> Check:
    """A JSON array of so many different texts, none of them empty."""

    def check(text: str) -> bool:
        found = _parsed(text)
        if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
            return False
        return len(found) == len({entry.strip().casefold() for entry in found if entry.strip()}) == length

    return check


def exactly(*answers: str) -> Check:
    """One of these and nothing else; case, and a full stop at the end, are left aside."""
    return lambda text: text.strip().removesuffix(".").casefold() in {answer.casefold() for answer in answers}


def one_word(text: str) -> bool:
    """One word, alone."""
    return len(words(text)) == 1 == len(text.split())


def tagged(tag: str) -> Check:
    """The whole answer between an opening and a closing tag, once."""
    pattern = re.compile(rf"<{tag}>[^<>]*[^<>\s][^<>]*</{tag}>")
    return lambda text: pattern.fullmatch(text.strip()) is not None


def numbered(lines: int) -> Check:
    """So many lines and no others, numbered from 1, each with words behind the number."""

    def check(text: str) -> bool:
        found = [re.match(r"([0-9]+)[.)]\s+(?=.*\w)", line.strip()) for line in text.splitlines() if line.strip()]
        return [line and line[1] for line in found] == [str(number) for number in range(1, lines + 1)]

    return check


def at_most_words(limit: int) -> Check:
    """At least two words, and at most so many."""
    return lambda text: 2 <= len(words(text)) <= limit


def at_most_characters(limit: int) -> Check:
    """At least two words, in at most so many characters."""
    return lambda text: len(words(text)) >= 2 and len(text.strip()) <= limit


def exactly_sentences(count: int) -> Check:
    """So many sentences, of two words or more on average."""
    return lambda text: sentences(text) == count and len(words(text)) >= 2 * count


def _json(random: Random) -> Iterator[_Made]:
    for person in random.sample(_PEOPLE, 5):
        age = random.randint(20, 79)
        text = f"{person} is {age} years old."
        yield _Made(
            f'Write a JSON object with the keys "name" and "age" (a number) for this text: {text} {_JSON_ONLY}',
            object_with(name=person, age=age),
            _shown(
                *(
                    (f"Text: {name} is {years} years old.\nJSON:", json.dumps({"name": name, "age": years}))
                    for name, years in (("Paul", 31), ("Rosa", 58))
                ),
                last=f"Text: {text}\nJSON:",
            ),
        )
    for person, city in zip(random.sample(_PEOPLE, 4), random.sample(_CITIES, 4), strict=True):
        text = f"{person} lives in {city}."
        yield _Made(
            f'Write a JSON object with the keys "name" and "city" for this text: {text} {_JSON_ONLY}',
            object_with(name=person, city=city),
            _shown(
                *(
                    (f"Text: {name} lives in {place}.\nJSON:", json.dumps({"name": name, "city": place}))
                    for name, place in (("Paul", "Paris"), ("Rosa", "Madrid"))
                ),
                last=f"Text: {text}\nJSON:",
            ),
        )
    for listed in _LISTS:
        example = '\nJSON: ["one", "two", "three"]\n\nText: three days\nJSON: ["Monday", "Tuesday", "Sunday"]'
        yield _Made(
            f"Name {listed} as a JSON array of strings. {_JSON_ONLY}",
            array_of(3),
            f"Text: three numbers{example}\n\nText: {listed}\nJSON:",
        )


def _exact(random: Random) -> Iterator[_Made]:
    for month in random.sample(range(len(_MONTHS)), 3):
        day, year = random.randint(10, 28), random.randint(1990, 2020)
        yield _Made(
            f"Write the date {day} {_MONTHS[month]} {year} in the form YYYY-MM-DD. Answer with the date only.",
            exactly(f"{year}-{month + 1:02d}-{day}"),
            _shown(
                ("12 March 2004 =", "2004-03-12"),
                ("25 October 1998 =", "1998-10-25"),
                last=f"{day} {_MONTHS[month]} {year} =",
            ),
        )
    for _ in range(2):
        chosen = random.sample(_FRUIT, 3)
        yield _Made(
            f"Write the words {chosen[0]}, {chosen[1]} and {chosen[2]} in one line, separated by semicolons without "
            "spaces, and nothing else.",
            exactly(";".join(chosen)),
            _shown(
                ("red, green and blue =", "red;green;blue"),
                ("one, two and three =", "one;two;three"),
                last=f"{chosen[0]}, {chosen[1]} and {chosen[2]} =",
            ),
        )
    for question in _YES_NO:
        yield _Made(f"{question} Answer with yes or no only.", exactly("yes", "no"))
    for question in _ONE_WORD[:3]:
        yield _Made(f"{question} Answer with one word only.", one_word)
    yield _Made(
        f"{_ONE_WORD[3]} Put your answer between <answer> and </answer> and write nothing else.", tagged("answer")
    )
    for lines in (3, 4):
        yield _Made(f"Write a numbered list of {lines} pets, one per line, and nothing else.", numbered(lines))


def _length(random: Random) -> Iterator[_Made]:
    topics = iter(random.sample(_TOPICS, len(_TOPICS)))
    for limit in (10, 15, 20, 25, 30):
        yield _Made(f"Say something about {next(topics)} in at most {limit} words.", at_most_words(limit))
    for limit in (60, 100, 140, 180):
        prompt = f"Say something about {next(topics)} in at most {limit} characters, spaces included."
        yield _Made(prompt, at_most_characters(limit))
    for count in (1, 1, 2):
        number = "one sentence" if count == 1 else f"{count} sentences"
        yield _Made(f"Say something about {next(topics)} in exactly {number}.", exactly_sentences(count))
    yield _Made("What is a dog? Answer in exactly one sentence.", exactly_sentences(1))
    yield _Made("Why do people sleep? Answer in exactly 3 sentences.", exactly_sentences(3))


def _shown(*examples: tuple[str, str], last: str) -> str:
    """Examples to be continued, a blank line between them."""
    return "\n\n".join([*(f"{ask} {answer}" for ask, answer in examples), last])


def _parsed(text: str) -> Any:
    try:
        return json_value(text)
    except ValueError:
        return None


def _folded(found: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Values with their types, for `31` is neither `31.0` nor `true` nor `"31"`."""
    return {
        key: (type(value).__name__, value.strip().casefold() if isinstance(value, str) else value)
        for key, value in found.items()
    }
