"""The standard suite put to two models: the same items, the same rules, compared item by item.

An interrupted audit resumes behind the last list of items that a model has answered. Answers are kept as text, and
checked anew each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.abilities.ask import Asked, Reason, checked, passed, put, write
from keeptune.audit.abilities.choices import kind_of
from keeptune.audit.abilities.compare import Comparison, Verdict, accident, compare
from keeptune.audit.abilities.item import Ability, Chance, Name
from keeptune.audit.abilities.text import fault
from keeptune.audit.tasks import choose, score_choices
from keeptune.log import logger
from keeptune.workspace import Steps


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What both models say to an item, and whether it passes."""

    item: str
    prompt: str
    base: str
    tuned: str
    base_passes: bool
    tuned_passes: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """An ability of two models, or why it was not asked."""

    name: Name
    verdict: Verdict
    reason: Reason | None = None
    left_out: int = 0
    """Items longer than the context, or without a finite score."""
    comparison: Comparison | None = None
    faults: dict[str, dict[str, int]] | None = None
    """Of answers in prose: how many of each model are empty, a loop, or in another language."""
    answers: tuple[Answer, ...] = ()


def measure_suite(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    abilities: Sequence[Ability],
    steps: Steps,
) -> list[Result]:
    """Both models' abilities, compared; in the order given.

    Args:
        tokenizer: the base's; both models are asked in its chat template, or plainly where it has none.
        steps: bound to both models; answers are kept there as text.

    Raises:
        ConfigError: the chat template cannot render a request, or no way of generating fits a model.
        Diverged: predictions are no numbers.
    """
    ask = partial(measure_ability, base, tuned, tokenizer, steps)
    return [ask(ability) for ability in abilities]


def measure_ability(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, steps: Steps, ability: Ability
) -> Result:
    """One ability of `measure_suite`."""
    if ability.questions:
        return _choices(ability, base, tuned, tokenizer, steps)
    asked = put(ability, base, tokenizer)
    if isinstance(asked, Reason):
        verdict = Verdict.CANNOT if asked == Reason.NO_TOOLS else Verdict.NOT_APPLICABLE
        return Result(name=ability.name, verdict=verdict, reason=asked)
    if asked.too_long:
        logger.warning(f"{ability.title}: {asked.too_long} items left out, too long for the context")
    steps = steps.of(prompts=asked.prompts, new_tokens=ability.new_tokens)
    texts, passes, chat = {}, {}, bool(tokenizer.chat_template)
    for which, model in (("base", base), ("tuned", tuned)):
        make = partial(write, ability, asked, model, tokenizer, f"{ability.title} ({which})")
        said = steps.once(f"ability {ability.name} {which}", make)
        texts[which] = checked(ability, asked, said, chat=chat)
        passes[which] = passed(ability, asked, said, chat=chat)
    chance = accident(asked.items, texts["base"]) if ability.chance == Chance.ACCIDENT else 0.0
    comparison = compare([item.kind for item in asked.items], passes["base"], passes["tuned"], chance)
    return Result(
        name=ability.name,
        verdict=comparison.verdict,
        left_out=asked.too_long,
        comparison=comparison,
        faults=_faults(texts) if ability.name == Name.SOUND else None,
        answers=_answers(asked, texts, passes, chat=chat),
    )


def _answers(
    asked: Asked, texts: dict[str, list[str]], passes: dict[str, list[bool]], *, chat: bool
) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            item=item.name,
            prompt=item.prompt if chat else item.completion or "",
            base=texts["base"][place],
            tuned=texts["tuned"][place],
            base_passes=passes["base"][place],
            tuned_passes=passes["tuned"][place],
        )
        for place, item in enumerate(asked.items)
    )


def _faults(texts: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    found = {which: Counter(map(fault, of)) for which, of in texts.items()}
    return {which: {name: of[name] for name in ("empty", "loop", "language")} for which, of in found.items()}


def _choices(
    ability: Ability,
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: Steps,
) -> Result:
    questions = list(ability.questions)

    def score() -> list[list[int] | None]:
        scores = score_choices(base, tuned, tokenizer, questions, chat=False, label=ability.title)
        return [None if of is None else choose(one, of) for one, of in zip(questions, scores, strict=True)]

    steps = steps.of(questions=[asdict(question) for question in questions])
    chosen = steps.once(f"ability {ability.name}", score)
    scored = [(one, both) for one, both in zip(questions, chosen, strict=True) if both is not None]
    if not scored:
        return Result(name=ability.name, verdict=Verdict.NOT_APPLICABLE, reason=Reason.NO_ROOM, left_out=len(questions))
    base_right, tuned_right = ([both[which] == one.right for one, both in scored] for which in (0, 1))
    chance = sum(1 / len(one.choices) for one, _ in scored) / len(scored)
    comparison = compare([kind_of(one) for one, _ in scored], base_right, tuned_right, chance)
    answers = tuple(
        Answer(
            item=one.name,
            prompt=one.question,
            base=one.choices[both[0]],
            tuned=one.choices[both[1]],
            base_passes=both[0] == one.right,
            tuned_passes=both[1] == one.right,
        )
        for one, both in scored
    )
    return Result(
        name=ability.name,
        verdict=comparison.verdict,
        left_out=len(questions) - len(scored),
        comparison=comparison,
        answers=answers,
    )
