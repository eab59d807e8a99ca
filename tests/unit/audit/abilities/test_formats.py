"""The rules of the format items, each with answers that pass and answers that fail."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from keeptune.audit.abilities.formats import (
    array_of,
    at_most_characters,
    at_most_words,
    exactly,
    exactly_sentences,
    items,
    numbered,
    object_with,
    one_word,
    tagged,
)
from keeptune.audit.abilities.item import Check

ANNA = object_with(name="Anna", age=34)
PASSING: list[tuple[Check, str]] = [
    (ANNA, '{"name": "Anna", "age": 34}'),
    (ANNA, '{"age":34,"name":"anna"}'),
    (ANNA, '```json\n{\n  "name": "Anna ",\n  "age": 34\n}\n```'),
    (ANNA, '{"name": "\\u0041nna", "age": 34}'),
    (array_of(3), '["red", "green", "blue"]'),
    (array_of(3), '```\n["é", "日本", "c"]\n```'),
    (exactly("2021-03-05"), " 2021-03-05.\n"),
    (exactly("yes", "no"), "Yes"),
    (exactly("a;b"), "a;b"),
    (one_word, " Cold.\n"),
    (one_word, "well-known"),
    (tagged("answer"), "<answer>green</answer>\n"),
    (tagged("answer"), "<answer>\n green \n</answer>"),
    (numbered(3), "1. cat\n2. dog\n\n3. fish"),
    (numbered(2), "1) a cat\n2) a dog\n"),
    (at_most_words(5), "Cats sleep a lot."),
    (at_most_characters(20), "Cats sleep a lot."),
    (exactly_sentences(1), "A dog is an animal."),
    (exactly_sentences(2), "A dog is an animal. It barks!"),
]
FAILING: list[tuple[Check, str]] = [
    *(
        (check, text)
        for check in (ANNA, array_of(3), exactly("a"), one_word, tagged("b"))
        for text in ("", " \n", "{}")
    ),
    *((check, "") for check in (numbered(3), at_most_words(5), at_most_characters(20), exactly_sentences(1))),
    (ANNA, 'Here it is: {"name": "Anna", "age": 34}'),
    (ANNA, '{"name": "Anna", "age": 34}\n\nI hope this helps!'),
    (ANNA, '{"name": "Anna", "age": "34"}'),
    (ANNA, '{"name": "Anna", "age": 34.0}'),
    (ANNA, '{"name": "Anna", "age": 35}'),
    (ANNA, '{"name": "Anna", "age": true}'),
    (ANNA, '{"name": "Anna"}'),
    (ANNA, '{"name": "Anna", "age": 34, "city": "Rome"}'),
    (ANNA, '[{"name": "Anna", "age": 34}]'),
    (ANNA, '{"person": {"name": "Anna", "age": 34}}'),
    (ANNA, '{"Name": "Anna", "Age": 34}'),
    (ANNA, "{'name': 'Anna', 'age': 34}"),
    (ANNA, '{"name": "Anna", "age": 34'),
    (ANNA, '{"name": "Anna", "age": 34, "age": 34}'),
    (ANNA, '{"a":' * 5_000 + "1" + "}" * 5_000),
    (array_of(3), '["red", "green"]'),
    (array_of(3), '["red", "Red", "blue"]'),
    (array_of(3), '["red", "", "blue"]'),
    (array_of(3), '["red", 2, "blue"]'),
    (array_of(3), '[["red", "green", "blue"]]'),
    (array_of(3), '{"colors": ["red", "green", "blue"]}'),
    (array_of(3), "red, green, blue"),
    (exactly("2021-03-05"), "The date is 2021-03-05."),
    (exactly("2021-03-05"), "2021-3-5"),
    (exactly("2021-03-05"), "2021‑03‑05"),
    (exactly("yes", "no"), "Yes, it is."),
    (exactly("a;b"), "a; b"),
    (one_word, "It is"),
    (one_word, "cold cold"),
    (one_word, "cold\n."),
    (one_word, "..."),
    (tagged("answer"), "The answer is <answer>green</answer>"),
    (tagged("answer"), "<answer></answer>"),
    (tagged("answer"), "<answer> </answer>"),
    (tagged("answer"), "<answer>green"),
    (tagged("answer"), "<answer>a</answer><answer>b</answer>"),
    (tagged("answer"), "<Answer>green</Answer>"),
    (numbered(3), "1. cat\n2. dog"),
    (numbered(3), "1. cat\n2. dog\n3. fish\n4. bird"),
    (numbered(3), "Pets:\n1. cat\n2. dog\n3. fish"),
    (numbered(3), "1. cat\n1. dog\n1. fish"),
    (numbered(3), "1. cat 2. dog 3. fish"),
    (numbered(3), "1.\n2.\n3."),
    (numbered(3), "1. -\n2. -\n3. -"),
    (numbered(3), "- cat\n- dog\n- fish"),
    (numbered(3), "١. cat\n٢. dog\n٣. fish"),
    (at_most_words(5), "Cats are animals that sleep a lot."),
    (at_most_words(5), "Cats"),
    (at_most_words(5), "... ... ..."),
    (at_most_characters(20), "Cats are animals that sleep a lot."),
    (at_most_characters(20), "x" * 20),
    (exactly_sentences(1), "A dog is an animal. It barks."),
    (exactly_sentences(1), "Dog."),
    (exactly_sentences(3), "One. Two. Three."),
    (exactly_sentences(1), "... . ... ."),
]


@pytest.mark.parametrize(("check", "text"), PASSING)
def test_answers_that_pass(check: Check, text: str) -> None:
    assert check(text)


@pytest.mark.parametrize(("check", "text"), FAILING)
def test_answers_that_fail(check: Check, text: str) -> None:
    assert not check(text)


def right_answer(prompt: str) -> str:
    """An answer by hand to each kind of request, from the request's own words."""
    if found := re.search(r"text: (\w+) is (\d+) years", prompt):
        return json.dumps({"name": found[1], "age": int(found[2])})
    if found := re.search(r"text: (\w+) lives in (\w+)\.", prompt):
        return json.dumps({"name": found[1], "city": found[2]})
    if "JSON array" in prompt:
        return '["one", "two", "three"]'
    if found := re.search(r"date (\d+) (\w+) (\d+) in", prompt):
        return datetime.strptime(" ".join(found.groups()), "%d %B %Y").date().isoformat()
    if found := re.search(r"words (\w+), (\w+) and (\w+) in", prompt):
        return ";".join(found.groups())
    if found := re.search(r"numbered list of (\d)", prompt):
        return "\n".join(f"{number}. cat" for number in range(1, int(found[1]) + 1))
    if "<answer>" in prompt:
        return "<answer>green</answer>"
    if found := re.search(r"exactly (\w+) sentence", prompt):
        return "It is here. " * {"one": 1, "2": 2, "3": 3}[found[1]]
    return "Yes." if "yes or no" in prompt else "Cold" if "one word" in prompt else "It is good."


def test_every_item_can_be_passed_and_none_by_the_answer_to_another_kind_of_json() -> None:
    made = items(1)
    assert len(made) == 42 and len({item.name for item in made}) == 42 and made != items(2)
    assert [item.prompt for item in made] == [item.prompt for item in items(1)]
    for item in made:
        assert item.check(right_answer(item.prompt)), item.prompt
        assert not item.check("")
        assert not item.check("I am sorry, but I cannot help you with that request. " * 9)
    json_items = [item for item in made if item.kind == "valid JSON"]
    assert len(json_items) == 14 and all(item.completion for item in json_items)
