"""Chat templates: which one renders a chat, and rendering it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from keeptune.data.messages import REASONING, TRAIN, Message, calls_of, content_of
from keeptune.errors import ConfigError

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_READS_REASONING = re.compile(r"""reasoning_content|(?:\.|\[['"])(?:thinking|reasoning)\b""")
_CALLS_DATE = re.compile(r"""\bstrftime_now\(\s*(?:format\s*=\s*)?(?P<quote>['"])(?P<form>[^'"]*)(?P=quote)\s*\)""")
_PART = re.compile(r"""['"]type['"]: ?['"]text['"]""")
_DEFAULT, _TOOL_USE = "default", "tool_use"
RENDERING_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises on a chat that it does not fit."""

_THOUGHT, _SHIELD = "</think>", "</thin\ue0b6>"  # of one length, so that marks stay in place

Form = Callable[[Message], Message]
_pinned: ContextVar[date | None] = ContextVar("pinned", default=None)


@contextmanager
def on_day(day: date) -> Iterator[None]:
    """In the block, templates that write today's date write this one, so that a resumed run renders the same rows."""
    before = _pinned.set(day)
    try:
        yield
    finally:
        _pinned.reset(before)


def current_day() -> date:
    """The date that templates write."""
    return _pinned.get() or date.today()


def dated(template: str) -> str:
    """The template with `current_day`, at midnight, in place of its calls for the date and time."""
    now = datetime.combine(current_day(), time())
    return _CALLS_DATE.sub(lambda call: json.dumps(now.strftime(call["form"])), template)


def select_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Make a template the tokenizer's own, with which the model is then saved.

    `name` is one of the tokenizer's several templates, which becomes their default, or a file. Raises `ConfigError` if
    it is neither, or the file is no chat template.
    """
    own = tokenizer.chat_template
    several: dict[str, str] = own if isinstance(own, dict) else {}
    if name in several:
        tokenizer.chat_template = {**several, _DEFAULT: several[name]}
        return
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"the tokenizer has no chat template called {name}, and there is no such file",
            f"give a file, or one of {', '.join(sorted(several))}" if several else "give the path of a Jinja file",
        )
    try:
        text = path.read_text(encoding="utf-8")
        render_jinja_template([[{"role": "user", "content": "x"}]], chat_template=text)
    except (TemplateSyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a Jinja template: {error}", "correct the file") from error
    except RENDERING_ERRORS:
        pass  # a chat of its own kind may fit
    if "messages" not in text:
        raise ConfigError(f"{path} is not a chat template: it reads no messages", "give a chat template")
    tokenizer.chat_template = text


def own_template(tokenizer: PreTrainedTokenizerBase, tools: Any = None) -> str:
    """The tokenizer's template for a chat. Raises `ConfigError` if there is none, or several without a default."""
    own = tokenizer.chat_template
    if not own:
        raise ConfigError(
            "the documents are chats, but the base's tokenizer has no chat template",
            "use an instruct model, give a template (--chat-template FILE), or turn the chats into prompt and "
            "completion columns",
        )
    if isinstance(own, str):
        return own
    if tools and _TOOL_USE in own:  # as transformers chooses
        return own[_TOOL_USE]
    if _DEFAULT not in own:
        raise ConfigError(
            f"the tokenizer has the chat templates {', '.join(sorted(own))}, and none is the default",
            f"name one: --chat-template {sorted(own)[0]}",
        )
    return own[_DEFAULT]


def training_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    """TRL's version of a published template, in which answers are marked; None if this TRL has none."""
    try:
        from trl.chat_template_utils import get_training_chat_template  # noqa: PLC0415 - it loads datasets and scipy
    except ImportError:
        return None
    probe = copy.copy(tokenizer)
    probe.chat_template = template
    try:
        return get_training_chat_template(probe)
    except RENDERING_ERRORS:
        return None


def marks_answers(template: str) -> bool:
    """Whether a template marks answers with `{% generation %}`."""
    return bool(_GENERATION_MARK.search(template))


def forms(messages: list[Message], template: str) -> list[tuple[Form, ...]]:
    """The ways to write the same messages, of which a template reads one or another; the usual way first."""
    ways: list[tuple[Form, ...]] = [(), (_parts,)]
    if any("tool_calls" in message for message in messages):
        ways += [(_json_arguments,), (_json_arguments, _no_content), (_no_content,)]
    if (
        _THOUGHT in template
        and not _READS_REASONING.search(template)
        and any(REASONING[0] in message for message in messages)
    ):
        ways += [(_inline_reasoning, *way) for way in ways]
    # Last, as the templates that read reasoning in the content also write it anew.
    return [*ways, *((*way, _shielded) for way in ways)] if _THOUGHT in template else ways


class Renderer:
    """Renders the messages of one chat with one template, in one form."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        tools: Sequence[Mapping[str, object]] | None = None,
        variables: Mapping[str, object] | None = None,
        form: tuple[Form, ...] = (),
    ) -> None:
        """`variables` are the template's own, such as `enable_thinking`."""
        self.template = template
        self.marked = marks_answers(template)
        self._form = form
        self._given = {"tools": tools, **tokenizer.special_tokens_map, **(variables or {})}

    def __call__(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        """The chat's text; `ask` adds what opens an answer."""
        return self._render(messages, add_generation_prompt=ask)[0]

    def marks(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """The characters between the template's generation marks."""
        return self._render(messages, return_assistant_tokens_mask=True)[1]

    def without(self, variable: str) -> Renderer:
        """The same without a variable, or without `tools`."""
        other = copy.copy(self)
        other._given = {key: value for key, value in self._given.items() if key != variable}
        return other

    def _render(self, messages: Sequence[Message], **options: bool) -> tuple[str, list[tuple[int, int]]]:
        *before, last = messages
        written = [*(self._written(one, shield=False) for one in before), self._written(last, shield=True)]
        texts, marks = render_jinja_template([written], chat_template=dated(self.template), **self._given, **options)
        if _parts in self._form and _PART.search(texts[0]):
            raise ValueError("it writes content in parts as data")
        return texts[0].replace(_SHIELD, _THOUGHT), [(int(start), int(end)) for start, end in marks[0]] if marks else []

    def _written(self, message: Message, *, shield: bool) -> Message:
        written: Message = {key: value for key, value in message.items() if key != TRAIN}
        if reasoning := written.get(REASONING[0]):
            written = {**written, **dict.fromkeys(REASONING, reasoning)}
        for change in self._form:
            if change is not _shielded or (shield and message["role"] == "assistant"):
                written = change(written)
        return written


def _parts(message: Message) -> Message:
    """Content as a list of parts, as templates of vision models read it."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _json_arguments(message: Message) -> Message:
    """Arguments of tool calls as JSON text: DeepSeek's templates join them as strings."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls_of(message)
    ]
    return {**message, "tool_calls": calls}


def _shielded(message: Message) -> Message:
    """The end of the reasoning in a spelling that templates do not split at; `Renderer` writes it back.

    DeepSeek's templates drop all reasoning in the content, even that of the answer that is trained.
    """
    return {**message, "content": content_of(message).replace(_THOUGHT, _SHIELD)}


def _inline_reasoning(message: Message) -> Message:
    """Reasoning at the head of the content, as DeepSeek-R1 writes it."""
    if REASONING[0] not in message:
        return message
    bare = {key: value for key, value in message.items() if key not in REASONING}
    return {**bare, "content": f"<think>\n{message[REASONING[0]]}\n</think>\n\n{message['content']}"}


def _no_content(message: Message) -> Message:
    """No content beside tool calls: some templates render either of them."""
    return message if message["content"] or "tool_calls" not in message else {**message, "content": None}
