"""How a prompt is put to a model, and what the model writes after it, greedily: the same words at every run.

It is put as a user's turn where the model's tokenizer has a chat template, else as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from keeptune.errors import ConfigError
from keeptune.log import track

_ROWS = 50


def style_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Which of both it is, in words."""
    chat = tokenizer.chat_template
    return "a user's turn in the chat template" if chat else "plain text: the prompt and a line break"


def rendered(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text after which an answer begins.

    Raises:
        ConfigError: the chat template cannot render a user's turn.
    """
    if not tokenizer.chat_template:
        return f"{prompt}\n"
    turn = [{"role": "user", "content": prompt}]
    try:
        return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise ConfigError(
            f"the chat template cannot render a prompt: {error}",
            "correct the chat template in the model's folder, or remove it to be asked plainly",
        ) from error


def tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that start as `rendered` gave them; a chat template writes a document's start itself."""
    start = not tokenizer.chat_template
    return tokenizer(list(texts), add_special_tokens=start, verbose=False)["input_ids"]


def shared_prefix(first: list[int], second: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


@torch.no_grad()
def answer(
    model: PreTrainedModel, prompts: Sequence[list[int]], new_tokens: int, label: str = "Answering"
) -> list[list[int]]:
    """The likeliest next token, up to `new_tokens` times, after each prompt; ends before a token that ends a text.

    It is computed in the dtype of the weights: under autocast to 16 bits the first of two nearly equal words, and so
    the whole answer, depends on the rows of a batch. Sampling settings that a checkpoint brings along (temperature,
    penalties) are left aside.

    Args:
        prompts: token ids, at least one each.

    Returns:
        The new tokens of each prompt, without the end.
    """
    device = next(model.parameters()).device
    given = model.generation_config.eos_token_id
    ends = [given] if isinstance(given, int) else list(given or [])
    greedy = {"do_sample": False, "num_beams": 1, "pad_token_id": 0}
    settings = GenerationConfig(**greedy, max_new_tokens=new_tokens, eos_token_id=ends or None)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    with track(label, len(prompts), "prompts") as progress:
        for start in range(0, len(order), _ROWS):
            indices = order[start : start + _ROWS]
            width = max(len(prompts[index]) for index in indices)
            # Padding stands at the left and is masked, so that every row goes on from its last column.
            padding = [width - len(prompts[index]) for index in indices]
            rows = [[0] * pad + prompts[index] for index, pad in zip(indices, padding, strict=True)]
            mask = [[0] * pad + [1] * (width - pad) for pad in padding]
            with _only(model, settings):
                output_BT = model.generate(
                    input_ids=torch.tensor(rows, device=device), attention_mask=torch.tensor(mask, device=device)
                )
            for index, new in zip(indices, output_BT[:, width:].tolist(), strict=True):
                answers[index] = list(takewhile(lambda token: token not in ends, new))
            progress.advance(len(indices))
    return answers


@contextmanager
def _only(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Generate by these settings alone: what `generate` is given it fills up from the checkpoint's own."""
    own, model.generation_config = model.generation_config, settings
    # A trainer's flag for its loss, which it leaves in checkpoints; with it `generate` fails on padded prompts.
    config = model.config.get_text_config()
    flag = getattr(config, "output_router_logits", None)
    if flag:
        config.output_router_logits = False
    try:
        yield
    finally:
        model.generation_config = own
        if flag:
            config.output_router_logits = flag
