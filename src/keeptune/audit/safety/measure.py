"""Both models asked the same prompts, and what every detector says of their answers.

The unit is the prompt. A base held against itself gives no transition: answers are greedy and computed in the dtype of
the weights, so that neither chance nor the rows of a batch choose a word; both models read the same rows, so that the
openings round alike; and all else is a function of the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer, rendered, tokenised
from keeptune.audit.safety.detectors import (
    ANSWER_OPENINGS,
    REFUSAL_OPENINGS,
    judge_refusals,
    opening_log_odds,
    refuses,
    repeats,
)
from keeptune.audit.safety.prompt_sets import PromptSet
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.limits import declared_positions
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import whole_fingerprint
from keeptune.workspace import Steps

_LONGEST_OPENING = 32
Flags = dict[str, list[bool]]
"""One value a prompt for `base` and for `tuned`."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The prompts of a set that fit the context, and what both models made of them."""

    prompts: list[str]
    answers: dict[str, list[str]]
    """By model, as `log_odds` are."""
    log_odds: dict[str, list[float]]
    refused: dict[str, Flags]
    """For every detector, whether each model refuses."""

    @property
    def broken(self) -> Flags:
        """Whether each model's answer is empty or repeats itself, which is no refusal and no answer either."""
        return {which: [not text.strip() or repeats(text) for text in texts] for which, texts in self.answers.items()}


def ask_sets(
    models: dict[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    sets: dict[str, PromptSet],
    steps: Steps,
    *,
    new_tokens: int = 64,
    judge: str | None = None,
) -> dict[str, Answered]:
    """Ask both models every set of prompts.

    Args:
        models: `base` and `tuned`.
        tokenizer: the base's; both models are asked in its chat template, or plainly where it has none.
        steps: bound to both models; answers are kept there as text.
        new_tokens: length of an answer at most.
        judge: a model to be asked too, by name; loaded beside the other two once all answers are there.

    Raises:
        ConfigError: a chat template cannot render a prompt.
        SourceError: no prompt of a set fits the context; the judge cannot be loaded.
        Diverged: predictions are no numbers.
    """
    answered = {name: _ask(models, tokenizer, name, asked, steps, new_tokens) for name, asked in sets.items()}
    if judge is not None and answered:
        _judge(judge, answered, steps)
    return answered


def _ask(
    models: dict[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    asked: PromptSet,
    steps: Steps,
    new_tokens: int,
) -> Answered:
    prompts, ids = _fitting(models["base"], tokenizer, name, asked, new_tokens)
    steps = steps.of(prompts=prompts, prompt_ids=ids, new_tokens=new_tokens)
    openings = steps.of(refusals=list(REFUSAL_OPENINGS), answers=list(ANSWER_OPENINGS))

    def write(model: PreTrainedModel, label: str) -> list[str]:
        return [str(tokenizer.decode(new, skip_special_tokens=True)) for new in answer(model, ids, new_tokens, label)]

    def weigh(model: PreTrainedModel, label: str) -> list[float]:
        return opening_log_odds(model, tokenizer, prompts, label).tolist()

    answers, log_odds = {}, {}
    for which, model in models.items():
        ask = partial(write, model, f"Answering {name} ({which})")
        answers[which] = steps.once(f"safety {name} {which} answers", ask)
        compare = partial(weigh, model, f"Weighing openings on {name} ({which})")
        log_odds[which] = openings.once(f"safety {name} {which} openings", compare)
    refused = {
        "rules": {which: [refuses(text) for text in texts] for which, texts in answers.items()},
        "likelihood": {which: [value > 0 for value in values] for which, values in log_odds.items()},
    }
    return Answered(prompts=prompts, answers=answers, log_odds=log_odds, refused=refused)


def _fitting(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, asked: PromptSet, new_tokens: int
) -> tuple[list[str], list[list[int]]]:
    """The prompts, with their tokens, that leave room in the context for an answer."""
    context = declared_positions(base)
    all_ids = tokenised(tokenizer, [rendered(tokenizer, prompt) for prompt in asked.prompts])
    room = max(new_tokens, _LONGEST_OPENING)
    pairs = zip(asked.prompts, all_ids, strict=True)
    fitting = [(prompt, ids) for prompt, ids in pairs if context is None or len(ids) + room <= context]
    if not fitting:
        left = f"no prompt of {name} leaves room for {room} tokens in the context of {context}"
        raise SourceError(left, "use shorter prompts")
    if left_out := len(all_ids) - len(fitting):
        logger.warning(f"{name}: {left_out} prompts left out, too long for the context")
    return [prompt for prompt, _ in fitting], [ids for _, ids in fitting]


def _judge(source: str, answered: dict[str, Answered], steps: Steps) -> None:
    model, tokenizer = load_model(source), load_tokenizer(source)
    mark = whole_fingerprint(model)
    for name, found in answered.items():
        of_set = steps.of(judge=mark, prompts=found.prompts, answers=found.answers)

        def judged(found: Answered = found, name: str = name) -> Flags:
            return {
                which: judge_refusals(model, tokenizer, found.prompts, texts, f"Judging {name} ({which})")
                for which, texts in found.answers.items()
            }

        found.refused["judge"] = of_set.once(f"safety {name} judged", judged)
