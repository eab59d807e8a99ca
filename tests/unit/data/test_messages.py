"""Keys of messages that mean something, in every spelling that people have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keeptune.data.messages import check_messages, check_tools, check_variables, holds_absent_nulls, unpack
from keeptune.errors import SourceError

USER = {"role": "user", "content": "hi"}
FLAGS_ON = [
    *("weight", "loss_weight", "train", "training", "trainable", "is_trainable", "train_on_turn", "learn"),
    *("loss", "is_loss", "has_loss", "loss_mask", "calculate_loss", "compute_loss"),
]
FLAGS_OFF = ["mask", "masked", "is_masked", "ignore", "ignore_loss", "no_loss", "skip_loss"]


def checked(**answer: Any) -> dict[str, Any]:
    return unpack(check_messages([USER, {"role": "assistant", "content": "hello", **answer}], "row 1"))[1]


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "false", "False"])
@pytest.mark.parametrize("key", FLAGS_ON)
def test_every_spelling_takes_the_loss_from_a_turn(key: str, value: Any) -> None:
    assert checked(**{key: value}) == {"role": "assistant", "content": "hello", "train": False}
    assert checked(**{key: 1}) == checked(**{key: None}) == {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize("key", FLAGS_OFF)
def test_a_mask_is_the_opposite(key: str) -> None:
    assert checked(**{key: True})["train"] is False
    assert checked(**{key: 0}) == {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize(
    ("turn", "what"),
    [
        ({"role": "assistant", "content": "a", "weight": 0.5}, "turn 2: weight is 0.5; keeptune knows 0 and 1"),
        ({"role": "assistant", "content": "a", "train": "some"}, "train is 'some'"),
        ({"role": "assistant", "content": "a", "weight": 0, "train": True}, "weight and train contradict"),
        ({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0}]}, "train_detail marks a part"),
        ({"role": "user", "content": "a", "train": True}, r"turn 2 \(user\): train asks for loss"),
        (
            {"role": "assistant", "content": [{"type": "image_url"}]},
            "a part of type image_url; keeptune reads text",
        ),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "audio"}]}, "a part of type audio"),
        ({"role": "assistant", "content": None}, "turn 2 of messages lacks a text role or content"),
        ({"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}, "which only an assistant makes"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, "lacks the name of its function"),
        ({"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "[1]"}]}, "no JSON object"),
        ({"role": "assistant", "content": "", "tool_calls": "f(1)"}, "text that is not JSON"),
        ({"role": "user", "content": "a", "thinking": "hm"}, "thinking is not an assistant's text"),
        ({"role": "assistant", "content": "a", "thinking": "b", "reasoning": "c"}, "several reasonings"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(turn: dict[str, Any], what: str) -> None:
    with pytest.raises(SourceError, match=what) as refused:
        check_messages([USER, turn], "row 1")
    assert refused.value.what.startswith("row 1")
    assert refused.value.fix


def test_messages_of_a_data_set_stay_as_they_are() -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    turns = check_messages(
        [
            {"from": "human", "value": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}', "weight": 0},
            {"role": "observation", "content": "3", "name": "f", "other": None},
            {"role": "GPT", "content": None, "function_call": call, "thinking": "hm"},
        ],
        "row 1",
    )
    function = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    assert unpack(turns) == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "tool_calls": [function], "train": False},
        {"role": "tool", "content": "3", "name": "f"},
        {"role": "assistant", "content": "", "tool_calls": [function], "reasoning_content": "hm"},
    ]
    assert check_messages(turns, "row 1") == turns


def test_tools_and_variables_come_as_lists_and_objects_or_as_json() -> None:
    whole = '[{"type": "function", "function": {"name": "f"}}]'
    for given in ([{"name": "f"}], '[{"name": "f"}]', whole):
        assert check_tools(given, "row 1") == whole
    assert check_tools([{"name": "f", "parameters": None, "strict": None}], "row 1") == whole
    assert json.loads(check_tools('[{"name": "f", "strict": null}]', "row 1") or "")[0]["function"]["strict"] is None
    assert check_tools([], "row 1") is check_tools(None, "row 1") is check_tools("", "row 1") is None
    assert check_variables({"enable_thinking": False, "other": None}, "row 1") == '{"enable_thinking": false}'
    for check, given, what in [
        (check_tools, {"name": "f"}, "tools is not a list"),
        (check_tools, "f", "tools is text that is not JSON"),
        (check_variables, [1], "chat_template_kwargs is not an object"),
        (check_variables, {"chat_template": "x"}, "sets chat_template, which keeptune sets itself"),
    ]:
        with pytest.raises(SourceError, match=what):
            check(given, "row 1")


@pytest.mark.parametrize(
    ("turn", "arguments", "counted"),
    [
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": None}}}]}, {"a": 1}, True),
        (
            {"tool_calls": [{"name": "f", "arguments": {"a": {"b": None, "c": [{"d": None}]}}}]},
            {"a": {"c": [{}]}},
            True,
        ),
        ({"function_call": {"name": "f", "arguments": {"a": None}}}, {}, True),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": [None, 1]}}}]}, {"a": [None, 1]}, False),
        ({"tool_calls": [{"function": {"name": "f", "arguments": None}}]}, {}, False),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "null"}}]}, {}, False),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": 1, "b": null}'}]}, {"a": 1, "b": None}, False),
        ({"tool_calls": '[{"name": "f", "arguments": {"b": null}}]'}, {"b": None}, False),
        ({"tool_calls": ['{"name": "f", "arguments": {"b": null}}']}, {"b": None}, False),
        ({"function_call": '{"name": "f", "arguments": {"b": null}}'}, {"b": None}, False),
    ],
)
def test_nulls_of_a_call_are_kept_in_json_text_and_count_as_absent_in_objects(
    turn: dict[str, Any], arguments: dict[str, Any], counted: bool
) -> None:
    """Arrow writes null where another row has the key, so that in an object it says nothing."""
    whole = {"role": "assistant", "content": "", **turn}
    assert unpack(check_messages([USER, whole], "row 1"))[1]["tool_calls"][0]["function"]["arguments"] == arguments
    assert holds_absent_nulls([USER, whole], None) is counted
