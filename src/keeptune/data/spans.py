"""Rows of a chat as text, and which of their characters bear loss."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keeptune.data.messages import REASONING, TRAIN, Message, calls_of, content_of
from keeptune.data.templates import RENDERING_ERRORS, Renderer
from keeptune.errors import ConfigError

FIX_TEMPLATE = "leave it out of the chats, or give a template that renders it (--chat-template FILE)"
# A character of no text, which templates neither strip nor split at.
_MARK = "\ue0b5"
_HEADER = 400  # characters before an answer in which its opening is looked for
_SPACE = re.compile(r"\s+")

Span = tuple[int, int]
"""First character, and the one after the last."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A chat, or its beginning, as text."""

    text: str
    answers: dict[int, list[Span]]  # by turn: the characters that bear loss


def trains(message: Message) -> bool:
    """Whether a message bears loss."""
    return message["role"] == "assistant" and bool(message.get(TRAIN, True))


def chat_rows(messages: list[Message], render: Renderer, special: set[str], name: str) -> list[Row]:
    """The rows in which each answer is trained once, after the text that precedes it when the model writes it.

    The whole chat is one row as far as its answers are rendered alike however the chat goes on. Other answers end a row
    of their own. Raises `ConfigError` if the template leaves out a part of an answer.
    """
    pending = [turn for turn, message in enumerate(messages) if trains(message)]
    if not pending:
        return [Row(text=render(messages), answers={})]
    rows: list[Row] = []
    turns: list[Message] = messages
    while pending:
        row = _row(turns, pending, render, special)
        if not row.answers and turns == messages[: pending[-1] + 1]:
            row = _spliced(messages, pending[-1], render, special, name)
        for turn, spans in row.answers.items():
            if lost := _lost(messages[: turn + 1], row.text, spans, render):
                raise ConfigError(f"{name}: the chat template leaves out {lost} of turn {turn + 1}", FIX_TEMPLATE)
        if row.answers:
            rows.append(row)
        pending = [turn for turn in pending if turn not in row.answers]
        turns = messages[: pending[-1] + 1] if pending else []
    return sorted(rows, key=lambda row: min(row.answers))


def dropped_turn(messages: list[Message], render: Renderer, answer: Sequence[Message] = ()) -> int | None:
    """The first of the messages before an answer that the template does not render, or None."""
    marks = {turn: f" zq{turn}qz" for turn, message in enumerate(messages) if content_of(message).strip()}
    marked = [{**one, "content": content_of(one) + marks.get(turn, "")} for turn, one in enumerate(messages)]
    text = render([*marked, *answer], ask=not answer) if messages else ""
    for turn, message in enumerate(messages):
        named = [call["function"]["name"] for call in calls_of(message)]
        if not all(word in text for word in (marks.get(turn, "").strip(), *named)):
            return turn
    return None


def _row(turns: list[Message], pending: list[int], render: Renderer, special: set[str]) -> Row:
    """The chat of these turns, with those pending answers that it renders as their own beginning of the chat does."""
    text = render(turns)
    marks = render.marks(turns) if render.marked else []
    answers = {}
    for turn in pending:
        span = _answer(turns, turn, text, render, special) if turn < len(turns) else None
        if span is None:
            continue
        marked = [(max(start, span[0]), min(end, span[1])) for start, end in marks]
        spans = [(start, end) for start, end in marked if start < end] or [_trimmed(text, span, special)]
        *first, (start, end) = spans
        if not _closed(text, start, end, special):
            if end == len(text):
                text += _closing(turns, text, render, special)
            end = _through_token(text, end, special)
        answers[turn] = [*first, (start, end)]
    return Row(text=text, answers=answers)


def _answer(turns: list[Message], turn: int, text: str, render: Renderer, special: set[str]) -> Span | None:
    """The characters of an answer, or None where the row does not render it, or what precedes it, as its own chat."""
    opening, through = render(turns[:turn], ask=True), render(turns[: turn + 1])
    shared = _shared(opening[::-1], through[::-1])
    if opening[len(opening) - shared :].strip() and render(turns[:turn]) == opening:
        # The template opens an answer after every chat. What stands before that is what was asked.
        asked = {**turns[turn - 1], "content": content_of(turns[turn - 1]) + _MARK}
        header = len(opening) - render([*turns[: turn - 1], asked]).rfind(_MARK)
        through = through[: len(through) - min(shared, header)]
    if not text.startswith(_without_end(through, special)):
        return None
    start, end = _common(opening, text, special), _common(through, text, special)
    if start == len(opening):
        return start, end
    # The row may lack the end of the opening, which the model sees (`<think>`), but nothing of the chat before it.
    before = render(turns[:turn])
    if start < _common(before, opening, special) and not _follows(turns[: turn + 1], text[:start], render):
        return None
    said = _content_start(turns[: turn + 1], render)
    if said is None:
        return start, end
    words = opening[_shared(before, opening) :].strip()
    place = text.find(words, start, said) if words else -1
    return (start if place < 0 else place + len(words)) if start < said else said, end


def _follows(messages: list[Message], before: str, render: Renderer) -> bool:
    """Whether the text before the last message holds all others, in a template that opens no answer by itself."""
    last = content_of(messages[-2]).strip() if len(messages) > 1 else ""
    return bool(last) and last in before and dropped_turn(messages[:-1], render, messages[-1:]) is None


def _spliced(messages: list[Message], turn: int, render: Renderer, special: set[str], name: str) -> Row:
    """An answer after the opening that the model sees, where the template renders the chat before it differently.

    Mistral's templates write the system message into the last turn, and only if that is the user's.
    """
    opening, through = render(messages[:turn], ask=True), render(messages[: turn + 1])
    said = _content_start(messages[: turn + 1], render)
    if said is None:
        calls = calls_of(messages[turn])
        said = through.rfind(calls[0]["function"]["name"]) if calls else -1
    places = range(max(said - _HEADER, 0), said + 1)
    shared = {place: _shared(through[:place][::-1], opening[::-1]) for place in places}
    place = max(shared, key=lambda place: (shared[place], place), default=0)
    if not shared.get(place):
        raise ConfigError(
            f"{name}: the chat template renders turn {turn + 1} otherwise than after its own opening of an answer",
            "give a template with {% generation %} marks (--chat-template FILE)",
        )
    text = opening + through[place:]
    start, end = _trimmed(text, (len(opening), len(text)), special)
    return Row(text=text, answers={turn: [(start, end)]})


def _content_start(messages: list[Message], render: Renderer) -> int | None:
    """Where the last message's content starts, if the template renders it as it is."""
    content = content_of(messages[-1])
    said = content.lstrip()
    if not said:
        return None
    marked = {**messages[-1], "content": content[: len(content) - len(said)] + _MARK + said}
    try:
        rendered, plain = render([*messages[:-1], marked]), render(messages)
    except RENDERING_ERRORS:
        return None
    return rendered.find(_MARK) if _MARK in rendered and rendered.replace(_MARK, "") == plain else None


def _lost(messages: list[Message], text: str, spans: list[Span], render: Renderer) -> str | None:
    """What of the last message the row's answer lacks, in words; white space aside."""
    answer = messages[-1]
    wanted = [(REASONING[0], str(answer.get(REASONING[0], ""))), ("the content", content_of(answer))]
    for call in calls_of(answer):
        wanted += [("a tool call", leaf) for leaf in (call["function"]["name"], *_strings(call["function"]))]
    said = _SPACE.sub("", "".join(text[start:end] for start, end in spans))
    missing = [(what, leaf) for what, leaf in wanted if not _holds(said, leaf)]
    if not missing:
        return None
    # The opening may hold the first of it: `<think>`.
    before = _shared(render(messages[:-1]), text)
    said = _SPACE.sub("", text[min(before, spans[0][0]) : spans[-1][1]])
    return next((what for what, leaf in missing if not _holds(said, leaf)), None)


def _holds(text: str, leaf: str) -> bool:
    written = (leaf, json.dumps(leaf, ensure_ascii=False)[1:-1], json.dumps(leaf)[1:-1], repr(leaf)[1:-1])
    return any(_SPACE.sub("", one) in text for one in written)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _shared(left: str, right: str) -> int:
    """The length of the common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return low


def _common(left: str, right: str, special: set[str]) -> int:
    """The length of the common beginning, which does not end within a special token of either text."""
    length = _shared(left, right)
    for token in special:
        for start in range(max(length - len(token) + 1, 0), length):
            if any(text.startswith(token, start) and start + len(token) > length for text in (left, right)):
                length = start
                break
    return length


def _without_end(text: str, special: set[str]) -> str:
    """The text without white space and special tokens at its end."""
    ended = True
    while ended:
        text = text.rstrip()
        ended = any(text.endswith(token) for token in special)
        if ended:
            text = text.removesuffix(max((token for token in special if text.endswith(token)), key=len))
    return text


def _closed(text: str, start: int, end: int, special: set[str]) -> bool:
    said = text[start:end].rstrip()
    return any(said.endswith(token) for token in special)


def _trimmed(text: str, span: Span, special: set[str]) -> Span:
    """Most templates write a line break after the end-of-turn token, which the model does not generate."""
    start, end = span
    return (start, start + len(text[start:end].rstrip())) if _closed(text, start, end, special) else span


def _through_token(text: str, end: int, special: set[str]) -> int:
    """The end of the special token that follows, at once or after white space: models without an end-of-turn token
    (GLM) stop with the one that opens the next turn."""
    place = len(text) - len(text[end:].lstrip())
    return max((place + len(token) for token in special if text.startswith(token, place)), default=end)


def _closing(turns: list[Message], text: str, render: Renderer, special: set[str]) -> str:
    """The special token that would follow the last answer if the chat went on, or nothing."""
    role = "tool" if turns[-1].get("tool_calls") else "user"
    marked = {**turns[-1], "content": content_of(turns[-1]) + _MARK}
    try:
        longer = render([*turns[:-1], marked if role == "user" else turns[-1], {"role": role, "content": "x"}])
    except RENDERING_ERRORS:
        return ""
    end = longer.rfind(_MARK) + 1 if role == "user" else len(text) * longer.startswith(text)
    return longer[end : _through_token(longer, end, special)] if end else ""
