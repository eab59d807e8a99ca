"""The messages of a chat, checked and in one form: roles, content as text, tool calls, and which turns bear loss.

Data sets hold columns of one type, so that everything but role and content is kept as JSON in `fields_json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from keeptune.errors import SourceError

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of an assistant's reasoning. Templates read one of them, so that all are passed."""
TRAIN = "train"
"""The key of a message that says whether an assistant turn bears loss."""

_FIELDS = "fields_json"
_ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bot": "assistant", "model": "assistant",
    "system": "system", "developer": "developer",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
# Spellings of "this turn bears loss" and of its opposite, without underscores.
_TRAINED = frozenset(
    {"weight", "lossweight", "train", "training", "trainable", "istrainable", "trainonturn", "trainturn", "learn"}
    | {"loss", "isloss", "hasloss", "withloss", "useloss", "lossmask", "calculateloss", "computeloss"}
)
_MASKED = frozenset({"mask", "masked", "ismasked", "ignore", "ignoreloss", "noloss", "skiploss"})
# Columns with these names are flags of a whole row; `loss` or `mask` alone often hold other things there.
_ROW_FLAGS = _TRAINED - {"loss", "learn", "training"}
_FLAG_VALUES = {
    "true": True,
    "1": True,
    "1.0": True,
    "yes": True,
    "false": False,
    "0": False,
    "0.0": False,
    "no": False,
}
_PARTIAL = "train_detail"
_FIX = 'write messages as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'

Message = Mapping[str, object]
"""`role` and `content`, both text, and whatever else the chat template reads of it."""


class Function(TypedDict):
    """What a tool call calls."""

    name: str
    arguments: object


class Call(TypedDict):
    """A tool call; it may have an `id` and an `index` too."""

    type: str
    function: Function


def content_of(message: Message) -> str:
    """The content, which `check_messages` has made text."""
    return cast(str, message["content"])


def calls_of(message: Message) -> Sequence[Call]:
    """The tool calls of a checked message."""
    return cast(Sequence[Call], message.get("tool_calls", ()))


def check_messages(given: Any, place: str, column: str = "messages") -> list[Message]:
    """The messages in the form of a data set: role, content and, if there is more, `fields_json`.

    Messages in that form stay as they are. Raises `SourceError` for what is no message, or cannot be honoured.
    """
    given = _parsed(given, f"{place}: {column}")
    if not isinstance(given, list) or not given:
        raise SourceError(f"{place}: {column} is not a list of turns", _FIX)
    return [pack(_message(message, f"{place}: turn {turn}", column)) for turn, message in enumerate(given, start=1)]


def pack(message: Message) -> Message:
    """A message as a row of a data set."""
    more = {key: value for key, value in message.items() if key not in ("role", "content")}
    packed = {"role": message["role"], "content": message["content"]}
    return {**packed, _FIELDS: json.dumps(more, ensure_ascii=False, sort_keys=True)} if more else packed


def unpack(messages: Iterable[Message]) -> list[Message]:
    """The messages of `check_messages` with all of their keys."""
    return [
        {"role": message["role"], "content": message["content"], **json.loads(str(message.get(_FIELDS) or "{}"))}
        for message in messages
    ]


def check_tools(given: Any, place: str) -> str | None:
    """Tools as a JSON list of schemas, or None if there are none. Raises `SourceError` for anything else."""
    tools = _parsed(given, f"{place}: tools")
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise SourceError(f"{place}: tools is not a list of JSON schemas", "give tools as a list, or as a JSON list")
    # In JSON text a null is one that somebody wrote, such as a parameter's default.
    tools = tools if isinstance(given, str) else _given(tools)
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    return json.dumps(whole, ensure_ascii=False)


def check_variables(given: Any, place: str) -> str | None:
    """`chat_template_kwargs` as JSON, or None if there are none. Raises `SourceError` for anything else."""
    variables = _parsed(given, f"{place}: chat_template_kwargs")
    if not variables:
        return None
    if not isinstance(variables, dict):
        raise SourceError(f"{place}: chat_template_kwargs is not an object", "give an object of template variables")
    variables = {key: value for key, value in variables.items() if value is not None}
    for key in ("chat_template", "tokenize", "add_generation_prompt", "continue_final_message", "messages"):
        if key in variables:
            raise SourceError(
                f"{place}: chat_template_kwargs sets {key}, which keeptune sets itself", f"leave {key} out"
            )
    return json.dumps(variables, ensure_ascii=False, sort_keys=True) if variables else None


def holds_absent_nulls(turns: Any, tools: Any) -> bool:
    """Whether arguments of tool calls or schemas of tools hold a null that is read as an absent key.

    Objects do where they have columns of one type: such a null stands for a key of another row. JSON text is kept.
    """
    messages = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    calls = [turn.get("tool_calls") or turn.get("function_call") for turn in messages]
    whole = [one.get("function", one) for call in calls for one in _listed(call) if isinstance(one, dict)]
    arguments = [function.get("arguments") for function in whole if isinstance(function, dict)]
    return any(_given(value) != value for value in (*arguments, tools))


def row_trains(row: Mapping[str, object], place: str) -> bool:
    """Whether the flags of a whole row, such as a column `weight`, leave it its loss."""
    return all(
        _flag(value, key, place) for key, value in row.items() if _plain(key) in _ROW_FLAGS and value is not None
    )


def is_row_flag(column: str) -> bool:
    """Whether a column of this name says that a row bears loss."""
    return _plain(column) in _ROW_FLAGS


def _message(given: Any, place: str, column: str) -> Message:
    if not isinstance(given, dict):
        raise SourceError(f"{place} of {column} lacks a text role or content", _FIX)
    message = {key: value for key, value in given.items() if value is not None}
    if _FIELDS in message:
        return unpack([message])[0]
    role = message.pop("from", None) if "role" not in message else message.pop("role")
    content = message.pop("value", None) if "content" not in message else message.pop("content")
    calls = message.pop("tool_calls", None) or ([message.pop("function_call")] if "function_call" in message else None)
    if not isinstance(role, str):
        raise SourceError(f"{place} of {column} lacks a text role or content", _FIX)
    role = _ROLES.get(role.lower(), role)
    if role == "function_call":
        role, content, calls = "assistant", "", content
    reasoned = [key for key in REASONING if message.get(key)]
    if isinstance(content, list):
        content = _text_of_parts(content, place)
    if content is None and role == "assistant" and (calls or reasoned):
        content = ""
    if not isinstance(content, str):
        raise SourceError(f"{place} of {column} lacks a text role or content", _FIX)
    checked: dict[str, object] = {"role": role, "content": content}
    if calls:
        if role != "assistant":
            raise SourceError(f"{place} ({role}) has tool_calls, which only an assistant makes", "correct the role")
        checked["tool_calls"] = _tool_calls(calls, place)
    if len({message[key] for key in reasoned}) > 1:
        raise SourceError(f"{place} has several reasonings: {', '.join(reasoned)}", "keep one of them")
    if reasoned:
        if role != "assistant" or not isinstance(message[reasoned[0]], str):
            raise SourceError(f"{place} ({role}): {reasoned[0]} is not an assistant's text", "correct the row")
        checked[REASONING[0]] = message[reasoned[0]]
    if not _bears_loss(message, role, place):
        checked[TRAIN] = False
    known = {*REASONING, *(key for key in message if _plain(key) in _TRAINED | _MASKED)}
    return {**{key: value for key, value in message.items() if key not in known}, **checked}


def _bears_loss(message: Message, role: str, place: str) -> bool:
    if message.get(_PARTIAL):
        raise SourceError(
            f"{place}: {_PARTIAL} marks a part of a turn, and only whole turns can be marked", "leave it out"
        )
    flags = {key: _flag(value, key, place) for key, value in message.items() if _plain(key) in _TRAINED | _MASKED}
    if len(set(flags.values())) > 1:
        raise SourceError(f"{place}: {' and '.join(flags)} contradict each other", "keep one of them")
    if role != "assistant":
        # A weight of 1 is the neutral value; the others ask for a loss.
        asking = [key for key, value in flags.items() if value and _plain(key) in _TRAINED - {"weight", "lossweight"}]
        if asking:
            raise SourceError(
                f"{place} ({role}): {asking[0]} asks for loss, which only assistant turns bear",
                f"leave {asking[0]} out of turns that are not the assistant's",
            )
        return True
    return all(flags.values())


def _flag(value: object, key: str, place: str) -> bool:
    known = _FLAG_VALUES.get(str(value).lower()) if isinstance(value, bool | int | float | str) else None
    if known is None:
        raise SourceError(f"{place}: {key} is {value!r}; keeptune knows 0 and 1", "give 0 or 1, or true or false")
    return known is not (_plain(key) in _MASKED)


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _text_of_parts(parts: list[Any], place: str) -> str:
    texts = []
    for part in parts:
        kind = (
            part.get("type", "text" if "text" in part else "unknown") if isinstance(part, dict) else type(part).__name__
        )
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or kind not in ("text", "input_text", "output_text"):
            raise SourceError(
                f"{place} holds a part of type {kind}; keeptune reads text only",
                "leave such rows out, or train with KeepSFTTrainer and a processor",
            )
        texts.append(text)
    return "".join(texts)


def _tool_calls(given: Any, place: str) -> list[Mapping[str, object]]:
    whole: list[Mapping[str, object]] = []
    for one in _listed(_parsed(given, f"{place}: tool_calls")):
        call = _parsed(one, f"{place}: tool_calls")
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise SourceError(f"{place}: a tool call lacks the name of its function", "give function.name")
        told = function.get("arguments")
        arguments = _parsed(told, f"{place}: the arguments of {function['name']}") or {}
        if not isinstance(arguments, dict):
            raise SourceError(f"{place}: the arguments of {function['name']} are no JSON object", "give an object")
        if not any(isinstance(value, str) for value in (given, one, told)):
            arguments = _given(arguments)
        outer = {key: call[key] for key in ("id", "index") if call.get(key) is not None}
        whole.append({**outer, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return whole


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _given(value: Any) -> Any:
    """The value without keys whose value is null: Arrow writes them where another row has the key."""
    if isinstance(value, dict):
        return {key: _given(one) for key, one in value.items() if one is not None}
    return [_given(one) for one in value] if isinstance(value, list) else value


def _parsed(value: Any, what: str) -> Any:
    """JSON in a string, as data sets keep what has no single type."""
    if not isinstance(value, str) or not value.strip():
        return value or None
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SourceError(f"{what} is text that is not JSON", "give JSON") from error
