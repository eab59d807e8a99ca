"""Tool calls: every published template's own way to write a call passes, and nothing that is not that call."""

from __future__ import annotations

import pytest

from keeptune.audit.abilities.item import Item
from keeptune.audit.abilities.tools import TOOLS, called, items, never
from tests.helpers.chats import published, template_tokenizer
from tests.helpers.models import CHAT_TEMPLATE

ITEM = Item(
    name="00",
    kind="convert_currency",
    prompt="How much are 30 USD in EUR?",
    check=never,
    tools=(TOOLS["convert_currency"], TOOLS["set_timer"]),
    call=("convert_currency", {"amount": 30, "source": "USD", "target": "EUR"}),
)
_JSON = '{"name": "convert_currency", "arguments": {"amount": 30, "source": "USD", "target": "EUR"}}'
_XML = (
    "<tool_call>\n<function=convert_currency>\n<parameter=amount>\n30\n</parameter>\n<parameter=source>\nUSD\n"
    "</parameter>\n<parameter=target>\nEUR\n</parameter>\n</function>\n</tool_call>"
)
# What models of each family write, by hand.
BY_HAND = {
    "qwen2_5": f"<tool_call>\n{_JSON}\n</tool_call>",
    "qwen3": f"<think>\nThe user asks.\n</think>\n\n<tool_call>\n{_JSON}\n</tool_call>",
    "qwen3_instruct_2507": f"<tool_call>{_JSON}</tool_call>",
    "qwen3_6": f"I convert it.\n{_XML}",
    "nemotron_3_nano": _XML,
    "llama3_1": _JSON.replace("arguments", "parameters"),
    "lfm2_v2": "<|tool_call_start|>[convert_currency(target=\"EUR\", source='USD', amount=30)]<|tool_call_end|>",
    "gemma4": '<|tool_call>call:convert_currency{amount:30,source:<|"|>USD<|"|>,target:<|"|>EUR<|"|>}<tool_call|>',
    "glm4moe": (
        "<tool_call>convert_currency\n<arg_key>amount</arg_key>\n<arg_value>30</arg_value>\n<arg_key>source</arg_key>\n"
        "<arg_value>USD</arg_value>\n<arg_key>target</arg_key>\n<arg_value>EUR</arg_value>\n</tool_call>"
    ),
    "gptoss": (
        "<|channel|>analysis<|message|>We need it.<|end|><|start|>assistant to=functions.convert_currency<|channel|>"
        'commentary json<|message|>{"amount": 30, "source": "USD", "target": "EUR"}<|call|>'
    ),
}
CHANGES = {
    "another function": ("convert_currency", "convert_money"),
    "another argument": ("EUR", "GBP"),
    "a missing digit": ("30", "3"),
    "another key": ("target", "to"),
    "a word for a number": ("30", '"thirty"'),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_call_by_hand_passes_and_a_wrong_one_does_not(name: str) -> None:
    tokenizer, text = template_tokenizer(published()[name]), BY_HAND[name]
    check = called(tokenizer, ITEM, tokenizer.all_special_tokens)
    assert check is not None
    assert check(text) and check(text.replace("\n", "\n  ")) and check(text.replace(": ", ":").replace(", ", ","))
    for what, (before, after) in CHANGES.items():
        assert before in text and not check(text.replace(before, after)), what
    assert not check(text + text), "called twice"
    assert not check(text[: len(text) // 2])
    for other in (
        "",
        "I would call convert_currency with 30, USD and EUR.",
        _JSON[:-1],
        "30 USD are 27 EUR.",
        "{" * 9_999,
    ):
        assert not check(other), other


def test_json_without_quotes_or_braces_is_no_call() -> None:
    check = called(template_tokenizer(published()["qwen2_5"]), ITEM, ["<|im_end|>"])
    assert check is not None
    for text in (
        _JSON.replace('"', ""),
        _JSON[1:],
        _JSON,
        f"<tool_call>{_JSON[:-1]}</tool_call>",
        f"```\n{_JSON}\n```",
    ):
        assert not check(text)
    assert check(f"<tool_call>{_JSON}</tool_call><|im_end|>")


WITHOUT = {
    "cohere",
    "cohere2",
    "deepseek_r1_distill",
    "deepseekv3",
    "gemma",
    "gemma3",
    "llama3",
    "phi3",
    "phi3_5",
    "lfm2",
}


@pytest.mark.parametrize("name", sorted(published()))
def test_every_published_template_writes_calls_or_is_known_not_to(name: str) -> None:
    tokenizer = template_tokenizer(published()[name])
    check = called(tokenizer, ITEM, tokenizer.all_special_tokens)
    vision = name in {"idefics3", "smolvlm", "llava_next", "qwen2_5_vl"}
    assert (check is None) == (name in WITHOUT or vision)


def test_a_template_without_tools_has_no_rule() -> None:
    assert called(template_tokenizer(CHAT_TEMPLATE), ITEM, []) is None


def test_items_say_in_the_request_what_the_call_holds() -> None:
    made = items(1)
    assert len(made) == 30 and len({one.prompt for one in made}) > 25
    for item in made:
        assert item.call is not None and not item.check(str(item.call))
        name, arguments = item.call
        assert all(str(value) in item.prompt for value in arguments.values())
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in item.tools}
        assert len(offered) == 3 and set(offered[name]["properties"]) == set(arguments) == set(
            offered[name]["required"]
        )
    assert made == items(1) != items(2)
