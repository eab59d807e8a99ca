"""The standard suite put to two models: the same items and the same rules.

An interrupted audit resumes behind the last list of items that a model has answered. Answers are kept as text, and
checked anew each time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.abilities.ask import Reason, checked, put, write
from keeptune.audit.abilities.choices import kind_of
from keeptune.audit.abilities.compare import Standing, accident, standing
from keeptune.audit.abilities.item import Ability, Chance, Name
from keeptune.audit.tasks.scoring import choose, score_choices
from keeptune.log import logger
from keeptune.workspace import Steps


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What both models say to an item, and whether it passes."""

    item: str
    kind: str
    prompt: str
    base: str
    tuned: str
    base_passes: bool
    tuned_passes: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """An ability of two models, or why it was not asked."""

    name: Name
    standing: Standing
    reason: Reason | None = None
    """Why it was not asked."""
    left_out: int = 0
    """Items longer than the context, or without a finite score."""
    chance: float = 0.0
    """The share of items that a model would pass that has not read the request."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def base(self) -> list[bool]:
        """For every item whether the base passes it."""
        return [answer.base_passes for answer in self.answers]

    @property
    def tuned(self) -> list[bool]:
        """For every item whether the tuned model passes it."""
        return [answer.tuned_passes for answer in self.answers]


def measure_ability(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ability: Ability, steps: Steps
) -> Result:
    """Both models' answers to the items of an ability.

    Args:
        tokenizer: the base's; both models are asked in its chat template, or plainly where it has none.
        steps: bound to both models; answers are kept there as text.

    Raises:
        ConfigError: the chat template cannot render a request, or no way of generating fits a model.
        Diverged: predictions are no numbers.
    """
    if ability.questions:
        return _choices(base, tuned, tokenizer, ability, steps)
    asked = put(ability, base, tokenizer)
    if isinstance(asked, Reason):
        cannot = Standing.CANNOT if asked == Reason.NO_TOOLS else Standing.NOT_APPLICABLE
        return Result(name=ability.name, standing=cannot, reason=asked)
    if asked.too_long:
        logger.warning(f"{ability.title}: {asked.too_long} items left out, too long for the context")
    steps = steps.of(prompts=asked.prompts, new_tokens=ability.new_tokens)
    texts, chat = {}, bool(tokenizer.chat_template)
    for which, model in (("base", base), ("tuned", tuned)):
        make = partial(write, ability, asked, model, tokenizer, f"{ability.title} ({which})")
        texts[which] = checked(ability, asked, steps.once(f"ability {ability.name} {which}", make), chat=chat)
    chance = accident(asked.items, texts["base"]) if ability.chance == Chance.ACCIDENT else 0.0
    answers = [
        Answer(
            item=item.name,
            kind=item.kind,
            prompt=item.prompt if chat else item.completion or "",
            base=before,
            tuned=after,
            base_passes=item.check(before),
            tuned_passes=item.check(after),
        )
        for item, before, after in zip(asked.items, texts["base"], texts["tuned"], strict=True)
    ]
    return _result(ability, answers, chance, asked.too_long)


def _choices(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ability: Ability, steps: Steps
) -> Result:
    questions = list(ability.questions)

    def score() -> list[list[int] | None]:
        scores = score_choices(base, tuned, tokenizer, questions, chat=False, label=ability.title)
        return [None if of is None else choose(one, of) for one, of in zip(questions, scores, strict=True)]

    steps = steps.of(questions=[asdict(question) for question in questions])
    chosen = steps.once(f"ability {ability.name}", score)
    scored = [(one, both) for one, both in zip(questions, chosen, strict=True) if both is not None]
    if not scored:
        nothing, left_out = Standing.NOT_APPLICABLE, len(questions)
        return Result(name=ability.name, standing=nothing, reason=Reason.NO_ROOM, left_out=left_out)
    chance = sum(1 / len(one.choices) for one, _ in scored) / len(scored)
    answers = [
        Answer(
            item=one.name,
            kind=kind_of(one),
            prompt=one.question,
            base=one.choices[before],
            tuned=one.choices[after],
            base_passes=before == one.right,
            tuned_passes=after == one.right,
        )
        for one, (before, after) in scored
    ]
    return _result(ability, answers, chance, len(questions) - len(scored))


def _result(ability: Ability, answers: list[Answer], chance: float, left_out: int) -> Result:
    passes = [answer.base_passes for answer in answers], [answer.tuned_passes for answer in answers]
    found = standing(*passes, chance)
    return Result(name=ability.name, standing=found, left_out=left_out, chance=chance, answers=answers)
