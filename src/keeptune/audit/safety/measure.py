"""Both models asked the same prompts, and what every detector says of their answers.

The unit is the prompt. A base held against itself gives no transition: answers are greedy and computed in the dtype of
the weights, so that neither chance nor the rows of a batch choose a word; both models read the same rows, so that the
openings round alike; and all else is a function of the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer, rendered, style_of, tokenised
from keeptune.audit.safety.detectors import (
    ANSWER_OPENINGS,
    DETECTORS,
    REFUSAL_OPENINGS,
    RULE,
    compare_refusals,
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
from keeptune.models.modeling import fingerprint
from keeptune.stats import bootstrap_ratio, wilson
from keeptune.workspace import Steps

_LONGEST_OPENING = 32
Pair = dict[str, list[Any]]
"""One value a prompt for `base` and for `tuned`."""


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """The prompts of a set that fit the context, and what both models made of them."""

    prompts: list[str]
    answers: Pair
    log_odds: Pair
    refused: dict[str, Pair]
    """For every detector, whether each model refuses."""


def measure_safety(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: dict[str, PromptSet],
    steps: Steps,
    *,
    new_tokens: int = 64,
    judge: str | None = None,
) -> dict[str, Any]:
    """What both models refuse of each set of prompts, for JSON; empty without sets.

    Args:
        tokenizer: the base's; both models are asked in its chat template, or plainly where it has none.
        steps: bound to both models; answers are kept there as text.
        new_tokens: length of an answer at most.
        judge: a model to be asked too, by name; loaded beside the other two once all answers are there.

    Returns:
        `detectors`, what each of them is; `verdict_rule`; and under `sets` for each set what was asked, `detectors`
        with what `compare_refusals` gives (and `log_odds` in nats for the likelihood), `detectors_agree`, the share of
        prompts on which all of them say the same, `degenerate` answers, and every answer.

    Raises:
        ConfigError: a chat template cannot render a prompt.
        SourceError: no prompt of a set fits the context; the judge cannot be loaded.
        Diverged: predictions are no numbers.
    """
    if not sets:
        return {}
    models = {"base": base, "tuned": tuned}
    answered = {name: _ask(models, tokenizer, name, asked, steps, new_tokens) for name, asked in sets.items()}
    if judge is not None:
        _judge(judge, answered, steps)
    about = {"format": style_of(tokenizer), "new_tokens": new_tokens}
    return {
        "sets": {name: _described(sets[name], found, about) for name, found in answered.items()},
        "detectors": {name: DETECTORS[name] for name in next(iter(answered.values())).refused},
        "judge": judge,
        "verdict_rule": RULE,
    }


def _ask(
    models: dict[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    asked: PromptSet,
    steps: Steps,
    new_tokens: int,
) -> _Answered:
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
    return _Answered(prompts=prompts, answers=answers, log_odds=log_odds, refused=refused)


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


def _judge(source: str, answered: dict[str, _Answered], steps: Steps) -> None:
    model, tokenizer = load_model(source), load_tokenizer(source)
    mark = fingerprint(model)
    for name, found in answered.items():
        of_set = steps.of(judge=mark, prompts=found.prompts, answers=found.answers)

        def judged(found: _Answered = found, name: str = name) -> Pair:
            return {
                which: judge_refusals(model, tokenizer, found.prompts, texts, f"Judging {name} ({which})")
                for which, texts in found.answers.items()
            }

        found.refused["judge"] = of_set.once(f"safety {name} judged", judged)


def _described(asked: PromptSet, found: _Answered, about: dict[str, Any]) -> dict[str, Any]:
    broken = {which: [not text.strip() or repeats(text) for text in texts] for which, texts in found.answers.items()}
    detectors = {
        name: compare_refusals(pair["base"], pair["tuned"], broken["tuned"], asked.kind)
        for name, pair in found.refused.items()
    }
    odds = {which: np.array(values) for which, values in found.log_odds.items()}
    odds["change"] = odds["tuned"] - odds["base"]
    detectors["likelihood"]["log_odds"] = {
        which: bootstrap_ratio(values_P, np.ones_like(values_P)).as_dict() for which, values_P in odds.items()
    }
    return {
        "source": asked.source,
        "kind": asked.kind,
        "asked": len(found.prompts),
        "too_long": len(asked.prompts) - len(found.prompts),
        "in_file": asked.readable,
        "unreadable": asked.flaws,
        **about,
        "detectors": detectors,
        "detectors_agree": {which: _agreement(found.refused, which) for which in found.answers},
        "degenerate": {which: _degenerate(found.answers[which], broken[which]) for which in found.answers},
        "answers": [
            {
                "prompt": prompt,
                **{model: of_model[place] for model, of_model in found.answers.items()},
                "refused": {name: [of[place] for of in pair.values()] for name, pair in found.refused.items()},
                "degenerate": [of_model[place] for of_model in broken.values()],
            }
            for place, prompt in enumerate(found.prompts)
        ],
    }


def _agreement(refused: dict[str, Pair], which: str) -> dict[str, float]:
    said = list(zip(*(pair[which] for pair in refused.values()), strict=True))
    return wilson(sum(len(set(votes)) == 1 for votes in said), len(said)).ends()


def _degenerate(texts: list[str], broken: list[bool]) -> dict[str, Any]:
    """How many answers are empty or repeat themselves, apart and as a share together."""
    empty = sum(not text.strip() for text in texts)
    return {"empty": empty, "repeating": sum(broken) - empty, "share": wilson(sum(broken), len(texts)).ends()}
