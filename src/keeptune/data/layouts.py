"""Layouts that people's data sets have, turned into those that are tokenized: text, prompt and completion, messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keeptune.data.messages import (
    TRAIN,
    check_messages,
    check_tools,
    check_variables,
    holds_absent_nulls,
    is_row_flag,
    pack,
    row_trains,
    unpack,
)
from keeptune.errors import SourceError

Columns = Mapping[str, object]
"""A row, with whatever columns people give it."""
Check = Callable[[Columns, str], Columns]

SYSTEM = ("system", "system_prompt")
INSTRUCTION_INPUT = ("input", "context")
HISTORY = "history"
VARIABLES = "chat_template_kwargs"
OF_CHATS = ("tools", "functions", VARIABLES, *SYSTEM)
"""Columns that a chat may have beside its messages."""

# Of TRL and LLaMA-Factory, and of ms-swift.
_PAIRS = (("chosen", "rejected"), ("rejected_response",), ("rejected_messages",))
# Columns that no layout honours, and what they say. Empty ones are no matter.
_MEDIA = ("image", "images", "audio", "audios", "video", "videos", "pixel_values")


def refuse_unhonoured(row: Columns, place: str, read: tuple[str, ...]) -> None:
    """Raise `SourceError` for media, which are no text, for pairs of preferences and for the labels of KTO.

    `read` are the columns of the row's layout, none if it has none. A text, a completion or a whole chat may stand
    beside the chosen and rejected answers that it is one of.
    """
    whole = read in (("text",), ("prompt", "completion")) or (read == ("messages",) and _is_answered(row["messages"]))
    pairs = _PAIRS[1:] if whole else _PAIRS
    pair = next((pair for pair in pairs if all(given(row, column) for column in pair)), None)
    if pair is not None:
        raise SourceError(
            f"{place} has {' and '.join(pair)}, a pair for DPO",
            "train with KeepDPOTrainer, or keep the chosen answers as messages",
        )
    media = [column for column in _MEDIA if given(row, column)]
    if media:
        raise SourceError(
            f"{place} has the column {media[0]}, and keeptune reads text only",
            "leave the column out, or train with KeepSFTTrainer and a processor",
        )
    if isinstance(row.get("label"), bool) and "completion" in row:
        raise SourceError(
            f"{place} has a label of true or false, which says whether the completion is wanted (KTO)",
            "keep the wanted rows and leave out the column label, or use KeepMixin with TRL's KTOTrainer",
        )


def _is_answered(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def given(row: Columns, column: str) -> bool:
    """Whether a row has anything in a column: empty strings and lists are nothing."""
    value = row.get(column)
    return value is not None and not (isinstance(value, str | list | dict | tuple) and len(value) == 0)


def strings(*columns: str) -> Check:
    """The check of plain text: these columns are strings, and no column asks for what only a chat can have."""

    def check(row: Columns, place: str) -> Columns:
        for column in columns:
            if not isinstance(row[column], str):
                kind = type(row[column]).__name__
                raise SourceError(f"{place}: {column} is {kind}, not text", f"make {column} a string")
        chats_only = [column for column in OF_CHATS if given(row, column)]
        if columns != ("text",) and chats_only:
            raise SourceError(
                f"{place} has the column {chats_only[0]}, for which plain text has no place",
                "write the rows as messages, or put it at the head of the prompt and leave the column out",
            )
        if not row_trains(row, place):
            raise SourceError(f"{place} has a flag that takes its loss away", "leave the row out")
        return {column: row[column] for column in columns}

    return check


def messages(column: str = "messages") -> Check:
    """The check of a chat in a column."""
    return lambda row, place: _chat(row, place, row[column], column)


def completion(row: Columns, place: str) -> Columns:
    """Prompt and completion: strings, or messages as in TRL, of which only the completion bears loss."""
    if all(isinstance(row[column], str) for column in ("prompt", "completion")):
        return strings("prompt", "completion")(row, place)
    if not any(isinstance(row[column], list) for column in ("prompt", "completion")):
        return strings("prompt", "completion")(row, place)
    prompt = unpack(check_messages(_turns(row["prompt"], "user"), place, "prompt"))
    answer = unpack(check_messages(_turns(row["completion"], "assistant"), place, "completion"))
    silent = [{**message, TRAIN: False} if message["role"] == "assistant" else message for message in prompt]
    return _chat(row, place, [pack(message) for message in (*silent, *answer)], "prompt")


def question(asked: str, answered: str) -> Check:
    """A question and its answer, with what Alpaca's rows have beside them: an input, a system message, a history."""

    def check(row: Columns, place: str) -> Columns:
        for column in (asked, answered):
            if not isinstance(row[column], str | list):
                kind = type(row[column]).__name__
                raise SourceError(f"{place}: {column} is {kind}, not text", f"make {column} a string")
        turns = []
        history: Any = row.get(HISTORY) or ()
        for pair in history:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise SourceError(f"{place}: {HISTORY} is not a list of pairs", "give [[question, answer], …]")
            turns += [*_turns(pair[0], "user"), *_turns(pair[1], "assistant")]
        more = [str(row[column]) for column in INSTRUCTION_INPUT if given(row, column)]
        first = row[asked]
        if more and isinstance(first, str):
            turns.append({"role": "user", "content": "\n".join([first, *more] if first else more)})
        else:
            turns += _turns(first, "user")
        return _chat(row, place, [*turns, *_turns(row[answered], "assistant")], asked)

    return check


def unread_columns(row: Columns, read: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a row that hold something and that its layout does not read."""
    known = {*read, *OF_CHATS, *_MEDIA, *(column for column in row if is_row_flag(column))}
    if "text" in read:
        known -= {*OF_CHATS}
    elif len(read) == 2 and "completion" not in read:
        known |= {*INSTRUCTION_INPUT, HISTORY}
    return tuple(column for column in row if column not in known and given(row, column))


def has_absent_nulls(row: Columns, read: tuple[str, ...]) -> bool:
    """Whether what a layout reads of a row holds a null of a tool that counts as an absent key."""
    return any(holds_absent_nulls(row[column], _tools(row)) for column in read)


def _chat(row: Columns, place: str, turns: Any, column: str) -> Columns:
    checked = check_messages(turns, place, column)
    system = [row[name] for name in SYSTEM if given(row, name)]
    if system:
        if len(system) > 1 or not isinstance(system[0], str):
            raise SourceError(f"{place}: the system column is not one text", "keep one column system, a string")
        if checked[0]["role"] != "system":
            checked = [{"role": "system", "content": system[0]}, *checked]
        elif checked[0]["content"] != system[0]:
            raise SourceError(f"{place} has a system column and another system message", "keep one of them")
    if not row_trains(row, place):
        silent = ({**one, TRAIN: False} if one["role"] == "assistant" else one for one in unpack(checked))
        checked = [pack(message) for message in silent]
    return {
        "messages": checked,
        "tools": check_tools(_tools(row), place),
        VARIABLES: check_variables(row.get(VARIABLES), place),
    }


def _tools(row: Columns) -> Any:
    return row.get("tools") if given(row, "tools") else row.get("functions")


def _turns(value: Any, role: str) -> Any:
    return [{"role": role, "content": value}] if isinstance(value, str) else value
