"""Puts the items of an ability to a model, in the form that its chat template gives them, and has it answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.abilities.item import Ability, Item, Name
from keeptune.audit.abilities.thinking import OFF, ON, answered, closing_of, opened, thinks
from keeptune.audit.abilities.tools import called
from keeptune.audit.answers import answer, tokenised
from keeptune.data.messages import Message
from keeptune.data.templates import RENDERING_ERRORS, Renderer, forms, own_template
from keeptune.errors import ConfigError
from keeptune.models.limits import declared_positions


class Reason(StrEnum):
    """Why an ability cannot be asked of a base."""

    NO_TEMPLATE = "the base has no chat template"
    NO_TOOLS = "the base's chat template shows no tools, or writes no calls"
    NO_REASONING = "the base's chat template knows no reasoning"
    NO_ROOM = "no item leaves room for an answer in the base's context"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Items as token ids, and what stands before the answers that are checked."""

    items: list[Item]
    prompts: list[list[int]]
    heads: list[str]
    """A reasoning mark that the template wrote in the model's stead, as part of the answer."""
    too_long: int
    """Items left out, for they leave no room in the context."""


def put(ability: Ability, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Asked | Reason:
    """The items of an ability in the form in which both models are asked.

    With a chat template every item is a user's turn. Reasoning is switched off, or closed where the template opens it,
    but for the items about thinking. Without a template items that have a completion are text to be continued.

    Raises:
        ConfigError: the chat template cannot render an item.
    """
    if not tokenizer.chat_template:
        items = [item for item in ability.items if item.completion is not None]
        texts = [item.completion or "" for item in items]
        return _fitting(ability, items, texts, [""] * len(items), base, tokenizer) if items else Reason.NO_TEMPLATE
    if ability.name == Name.THINKING and not thinks(own_template(tokenizer)):
        return Reason.NO_REASONING
    items = list(ability.items)
    if ability.name == Name.TOOLS:
        ends = [*tokenizer.all_special_tokens, *_ends(base, tokenizer)]
        checks = [called(tokenizer, item, ends) for item in items]
        if None in checks:
            return Reason.NO_TOOLS
        items = [replace(item, check=check) for item, check in zip(items, checks, strict=True) if check]
    texts = [_turn(tokenizer, item, thinking=ability.name == Name.THINKING) for item in items]
    heads = [opened(text) if ability.name == Name.THINKING else "" for text in texts]
    return _fitting(ability, items, texts, heads, base, tokenizer)


def write(
    ability: Ability, asked: Asked, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, label: str
) -> list[str]:
    """A model's answers, greedily, as text."""
    new = answer(model, asked.prompts, ability.new_tokens, label)
    return [str(tokenizer.decode(ids, skip_special_tokens=not ability.markup)) for ids in new]


def checked(ability: Ability, asked: Asked, texts: Sequence[str], *, chat: bool) -> list[str]:
    """The part of each answer that is checked: without reasoning; of a completion that a line ends, the first line."""
    if ability.name == Name.THINKING:
        return [head + text for head, text in zip(asked.heads, texts, strict=True)]
    if chat:
        return [answered(text) for text in texts]
    pairs = zip(asked.items, texts, strict=True)
    return [text.strip().partition("\n")[0] if item.one_line else text for item, text in pairs]


def _turn(tokenizer: PreTrainedTokenizerBase, item: Item, *, thinking: bool) -> str:
    """An item rendered as a user's turn, up to where the answer begins."""
    template, tools = own_template(tokenizer, item.tools), list(item.tools) or None
    messages: list[Message] = [{"role": "user", "content": item.prompt}]
    fault: Exception | None = None
    for form in forms(messages, template):
        try:
            text = Renderer(tokenizer, template, tools, ON if thinking else OFF, form)(messages, ask=True)
        except RENDERING_ERRORS as error:
            fault = fault or error
            continue
        if item.prompt not in text:  # as templates of vision models leave out content that is no list of parts
            continue
        opening = "" if thinking else opened(text)
        return f"{text.rstrip()}\n\n{closing_of(opening)}\n\n" if opening else text
    raise ConfigError(
        f"the chat template cannot render a prompt: {fault or 'it leaves out what the user says'}",
        "correct the chat template in the model's folder, or leave out the suite",
    ) from fault


def _fitting(
    ability: Ability,
    items: list[Item],
    texts: list[str],
    heads: list[str],
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Asked | Reason:
    context, ids = declared_positions(base), tokenised(tokenizer, texts)
    keep = [place for place, of in enumerate(ids) if context is None or len(of) + ability.new_tokens <= context]
    if not keep:
        return Reason.NO_ROOM
    return Asked(
        items=[items[place] for place in keep],
        prompts=[ids[place] for place in keep],
        heads=[heads[place] for place in keep],
        too_long=len(items) - len(keep),
    )


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    given = model.generation_config.eos_token_id
    return [str(tokenizer.decode([end])) for end in ([given] if isinstance(given, int) else given or [])]
