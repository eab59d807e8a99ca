"""Chats as tokens: rendered by the chat template, with loss on what the assistant says and on the tokens that end it.

Each answer is trained once, in the text that precedes it when the model writes it. Most templates render that text
alike however the chat goes on, so that a chat is one row. Where a template rewrites earlier turns (it drops their
reasoning), an answer gets a row of its own, which ends with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from keeptune.data.messages import REASONING, TRAIN, Message, unpack
from keeptune.data.spans import FIX_TEMPLATE, Row, chat_rows, dropped_turn, trains
from keeptune.data.templates import (
    RENDERING_ERRORS,
    Form,
    Renderer,
    current_day,
    dated,
    forms,
    own_template,
    training_template,
)
from keeptune.data.tokens import IGNORED_LABEL, TokenRow, special_tokens
from keeptune.errors import ConfigError, KeeptuneError, SourceError
from keeptune.log import logger

_FIX_ROW = "correct the row or leave it out"
_Variables = Mapping[str, object] | None
_STANDARD = ("role", "content", "tool_calls", TRAIN, *REASONING)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A chat by one template."""

    rows: list[Row]
    unread: frozenset[str]


class Chats:
    """Tokenizes the chats of one data set, and counts what is to be said about them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises `ConfigError` if the tokenizer cannot render chats."""
        if not tokenizer.chat_template:
            own_template(tokenizer)
        if not tokenizer.is_fast:
            raise ConfigError(
                "chats need character offsets of tokens, which the base's slow tokenizer does not have",
                "save it as a tokenizer.json (a fast tokenizer), or use prompt and completion columns",
            )
        self._tokenizer = tokenizer
        self._special = set(special_tokens(tokenizer))
        self._training: dict[str, str | None] = {}
        self._good: dict[str, tuple[Form, ...]] = {}
        self._checked: dict[tuple[Any, ...], frozenset[str]] = {}
        self._unread: Counter[str] = Counter()
        self._chats = self._rows = self._split = self._by_trl = 0

    def __call__(self, document: Mapping[str, object], *_: object) -> Iterator[TokenRow]:
        """The token rows of a chat as `check_messages` returns it.

        Raises `SourceError` if the chat does not fit the template or starts with an answer, and `ConfigError` if the
        template leaves out a turn, or a part of an answer.
        """
        name, messages = str(document["document"]), unpack(cast(Iterable[Message], document["messages"]))
        tools, variables = (json.loads(str(document.get(key) or "null")) for key in ("tools", "chat_template_kwargs"))
        if trains(messages[0]):
            raise SourceError(f"{name} starts with an assistant turn, which answers nothing", _FIX_ROW)
        rows = self._rows_of(messages, tools, variables, name)
        self._chats += 1
        self._rows += len(rows)
        self._split += len(rows) > 1
        for row in rows:
            yield self._tokens(row)

    def report(self) -> None:
        """Say once what was rendered otherwise than a user may expect."""
        if self._by_trl:
            logger.info(
                f"TRL's training version of the chat template renders {self._by_trl} of {self._chats} chats: "
                "the model's own rewrites answers once a chat goes on; the model is saved with its own"
            )
        if self._split:
            logger.info(
                f"the chat template rewrites answers once a chat goes on, so that {self._split} of {self._chats} chats "
                f"are trained as several rows, each with an answer at its end: {self._rows} rows in all"
            )
        if any("strftime_now(" in template for template in self._training):
            kept = not any("strftime_now(" in dated(template) for template in self._training)
            day = f"{current_day()}; a resumed run keeps it" if kept else "so another day gives other rows"
            logger.info(f"the chat template writes a date into the chats, {day}")
        for key, count in sorted(self._unread.items()):
            logger.warning(f"the chat template does not read {key}, which {count} of {self._chats} chats give")

    def _rows_of(self, messages: list[Message], tools: Any, variables: _Variables, name: str) -> list[Row]:
        """The rows of a chat: by its own template, or by TRL's version of it where that makes fewer of them."""
        own = own_template(self._tokenizer, tools)
        if own not in self._training:
            self._training[own] = training_template(self._tokenizer, own)
        training = self._training[own]
        found = self._attempt(own, messages, tools, variables, name)
        if training is not None and (isinstance(found, KeeptuneError) or len(found.rows) > 1):
            other = self._attempt(training, messages, tools, variables, name)
            if not isinstance(other, KeeptuneError) and (isinstance(found, KeeptuneError) or len(other.rows) == 1):
                found = other
                self._by_trl += 1
        if isinstance(found, KeeptuneError):
            raise found
        self._unread.update(found.unread)
        return found.rows

    def _attempt(
        self, template: str, messages: list[Message], tools: Any, variables: _Variables, name: str
    ) -> _Attempt | KeeptuneError:
        """The rows by the first form of the messages that a template renders whole, or what stands in the way."""
        fault: KeeptuneError | None = None
        ways = forms(messages, template)
        good = self._good.get(template)
        for form in sorted(ways, key=lambda way: way != good):
            render = Renderer(self._tokenizer, template, tools, variables, form)
            try:
                rows = chat_rows(messages, render, self._special, name)
                unread = self._unread_keys(messages, tools, variables, render, name)
            except ConfigError as error:  # says more than that a form does not fit
                fault = fault if isinstance(fault, ConfigError) else error
            except RENDERING_ERRORS as error:
                fault = fault or SourceError(f"{name} does not fit the chat template: {error}", _FIX_ROW)
            else:
                self._good[template] = form
                return _Attempt(rows=rows, unread=unread)
        return fault or SourceError(f"{name} does not fit the chat template", _FIX_ROW)

    def _unread_keys(
        self, messages: list[Message], tools: Any, variables: _Variables, render: Renderer, name: str
    ) -> frozenset[str]:
        """The keys and variables that a template does not read. Refuses one that does not read tools or a turn."""
        keys = {key for message in messages for key in message if key not in _STANDARD}
        turns = (
            (one["role"], bool(one["content"]), "tool_calls" in one, trains(one), *sorted(keys & one.keys()))
            for one in messages
        )
        shape = (render.template, tuple(turns), bool(tools), tuple(sorted(variables or ())))
        if shape not in self._checked:
            last = max((turn for turn, message in enumerate(messages) if trains(message)), default=0)
            dropped = dropped_turn(messages[:last], render)
            if dropped is not None:
                role = messages[dropped]["role"]
                raise ConfigError(f"{name}: the chat template leaves out turn {dropped + 1} ({role})", FIX_TEMPLATE)
            if tools and not _read(messages, render, render.without("tools")):
                raise ConfigError(f"{name}: the chat template does not read tools", FIX_TEMPLATE)
            unread = {key for key in variables or () if not _read(messages, render, render.without(key))}
            self._checked[shape] = frozenset(unread | {key for key in keys if not _read(messages, render, render, key)})
        return self._checked[shape]

    def _tokens(self, row: Row) -> TokenRow:
        tokens = self._tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = sorted(span for spans in row.answers.values() for span in spans)
        answers, next_span = [], 0
        for begin, end in tokens["offset_mapping"]:
            while next_span < len(spans) and spans[next_span][1] <= begin:
                next_span += 1
            answers.append(next_span < len(spans) and begin < spans[next_span][1] and end > spans[next_span][0])
        ids = list(tokens["input_ids"])
        return ids, [token if answer else IGNORED_LABEL for token, answer in zip(ids, answers, strict=True)]


def _read(messages: list[Message], render: Renderer, other: Renderer, key: str | None = None) -> bool:
    """Whether the chat, or the opening of an answer to it, changes with another renderer or without a key."""
    without = [{name: value for name, value in message.items() if name != key} for message in messages]
    try:
        return any(render(messages, ask=ask) != other(without, ask=ask) for ask in (False, True))
    except RENDERING_ERRORS:
        return True
