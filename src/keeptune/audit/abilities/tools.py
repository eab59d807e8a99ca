"""Tool calls: well-formed, of the right function, with the right arguments, as the model's own template writes them.

There is no parser of calls here. The template that shows a model its tools also writes a call that a model has made:
a right answer holds what the template writes for the right call, up to white space, the kind of quotes and the order
of arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, permutations
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerBase

from keeptune.audit.abilities.item import Check, Item
from keeptune.audit.answers import shared_prefix
from keeptune.data.messages import Message
from keeptune.data.templates import RENDERING_ERRORS, Renderer, forms, own_template

_MOST_ORDERS = 6
# What a template writes for content says where the content of a turn begins.
_CONTENT = "§"
_SHORTEST_OPENING = 4

_CITIES = ("Oslo", "Lima", "Cairo", "Rome", "Delhi", "Quito", "Bern", "Accra", "Hanoi", "Porto", "Kyiv", "Dakar")
_PEOPLE = ("Anna", "Omar", "Mei", "Carlos", "Ingrid", "Kofi", "Lucia", "Ivan", "Priya", "Tom", "Sara", "Hugo")


def _tool(name: str, about: str, **arguments: tuple[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": text} for key, (kind, text) in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


TOOLS = {
    "get_weather": _tool("get_weather", "Get the current weather of a city.", city=("string", "Name of the city.")),
    "send_message": _tool(
        "send_message",
        "Send a text message to a person.",
        recipient=("string", "First name of the person."),
        text=("string", "The message."),
    ),
    "set_timer": _tool("set_timer", "Start a timer.", minutes=("integer", "Length of the timer in minutes.")),
    "convert_currency": _tool(
        "convert_currency",
        "Convert an amount of money.",
        amount=("integer", "The amount."),
        source=("string", "Currency code of the amount, such as USD."),
        target=("string", "Currency code to convert to, such as EUR."),
    ),
    "book_table": _tool(
        "book_table",
        "Book a table at a restaurant.",
        restaurant=("string", "Name of the restaurant."),
        guests=("integer", "Number of guests."),
    ),
}


def items(seed: int) -> tuple[Item, ...]:
    """30 items, the same for the same seed: 6 for each of five functions, offered with two of the others."""
    random = Random(seed)  # noqa: S311 - no secret
    made = [(name, *_request(name, random)) for _ in range(6) for name in TOOLS]
    asked = []
    for place, (name, prompt, arguments) in enumerate(made):
        others = random.sample([other for other in TOOLS if other != name], 2)
        offered = tuple(TOOLS[one] for one in sorted([name, *others]))
        call = (name, arguments)
        # The rule for an answer needs the template: `called` gives it.
        asked.append(Item(name=f"{place:02d}", kind=name, prompt=prompt, check=never, tools=offered, call=call))
    return tuple(asked)


def never(text: str) -> bool:
    """The rule of an item whose call no template has written."""
    return False


def _request(name: str, random: Random) -> tuple[str, dict[str, Any]]:
    city, person, number = random.choice(_CITIES), random.choice(_PEOPLE), random.randint(2, 59)
    if name == "get_weather":
        return f"What is the weather like in {city} right now?", {"city": city}
    if name == "send_message":
        text = random.choice(("I am on my way", "See you tomorrow", "The meeting is over", "Call me back"))
        return f'Send {person} this message: "{text}"', {"recipient": person, "text": text}
    if name == "set_timer":
        return f"Set a timer for {number} minutes.", {"minutes": number}
    if name == "convert_currency":
        source, target = random.sample(("USD", "EUR", "GBP", "JPY"), 2)
        arguments = {"amount": 10 * number, "source": source, "target": target}
        return f"How much are {10 * number} {source} in {target}?", arguments
    restaurant, guests = random.choice(("Bella", "Lotus", "Olive", "Harbor")), random.randint(2, 9)
    return f"Book a table for {guests} people at {restaurant}.", {"restaurant": restaurant, "guests": guests}


def called(tokenizer: PreTrainedTokenizerBase, item: Item, ends: Sequence[str]) -> Check | None:
    """The rule for an item's answer; None where the template shows no tools to the model, or writes no calls.

    Args:
        ends: the tokens that end a turn, as text, and other special tokens: a call need not have them at its end.
    """
    if item.call is None:
        return None
    template, tools = own_template(tokenizer, item.tools), list(item.tools)
    name, arguments = item.call
    ask: Message = {"role": "user", "content": item.prompt}
    orders = [dict(order) for order in islice(permutations(arguments.items()), _MOST_ORDERS)]
    for form in forms([ask, _call(name, arguments)], template):
        render = Renderer(tokenizer, template, tools, form=form)
        try:
            if render([ask], ask=True) == render.without("tools")([ask], ask=True):
                return None
            plain = render([ask, {"role": "assistant", "content": _CONTENT}])
            written = [_from_content(render([ask, _call(name, order)]), plain) for order in orders]
        except RENDERING_ERRORS:
            continue
        if all(name in text and all(str(value) in text for value in arguments.values()) for text in written):
            return _holds([_squashed(without_ends(text, ends)) for text in written], name)
    return None


def _call(name: str, arguments: dict[str, Any]) -> Message:
    call = {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _from_content(whole: str, plain: str) -> str:
    """A rendered call from where, in the same turn, plain content would begin."""
    return whole[shared_prefix(whole, plain) :]


def _holds(calls: list[str], name: str) -> Check:
    """One of these ways to write a call, and no second call beside it."""
    opening = calls[0].partition(name)[0]

    def check(text: str) -> bool:
        found = _squashed(text)
        second = len(opening) >= _SHORTEST_OPENING and found.count(opening) > 1
        return not second and any(call in found for call in calls)

    return check


def without_ends(text: str, ends: Sequence[str]) -> str:
    """The text without these tokens, and white space, at its end."""
    before = None
    while before != text:
        before, text = text, text.rstrip()
        for end in ends:
            text = text.removesuffix(end)
    return text


def _squashed(text: str) -> str:
    return "".join(text.split()).replace("'", '"')
