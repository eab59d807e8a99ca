"""How a prompt is put to a model, and what the model writes after it, greedily: the same words at every run.

It is put as a user's turn where the model's tokenizer has a chat template, else as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import takewhile

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from keeptune.data.templates import RENDERING_ERRORS, dated, own_template
from keeptune.errors import ConfigError
from keeptune.log import logger, track
from keeptune.models.guarded import first_line
from keeptune.stats import evenly_spaced

ROWS_TOGETHER = 50
# Rows of each batch to hold against the full forward. Of two nearly equal tokens (logits nearer than this) either is
# right, and a rounding error may route a token to another expert.
_PROVED, _TIE, _TIE_16_BIT, _MOST_WRONG = 4, 0.01, 0.5, 0.05


def style_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Which of both it is, in words."""
    chat = tokenizer.chat_template
    return "a user's turn in the chat template" if chat else "plain text: the prompt and a line break"


def rendered(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text after which an answer begins.

    Raises:
        ConfigError: the chat template cannot render a user's turn, or leaves its text out.
    """
    if not tokenizer.chat_template:
        return f"{prompt}\n"
    turn = [{"role": "user", "content": prompt}]
    try:
        template = dated(own_template(tokenizer))
        text = str(
            tokenizer.apply_chat_template(turn, chat_template=template, tokenize=False, add_generation_prompt=True)
        )
    except RENDERING_ERRORS as error:
        raise ConfigError(
            f"the chat template cannot render a prompt: {first_line(error)}",
            "correct the chat template in the model's folder, or remove it to be asked plainly",
        ) from error
    # Templates of some models that see images leave out content that is plain text.
    if prompt.strip() not in text:
        raise ConfigError(
            "the chat template leaves out or changes the text of a prompt",
            "correct the chat template in the model's folder, or remove it to be asked plainly",
        )
    return text


def tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that start as `rendered` gave them; a chat template writes a document's start itself."""
    start = not tokenizer.chat_template
    return tokenizer(list(texts), add_special_tokens=start, verbose=False)["input_ids"]


def shared_prefix(first: Sequence[object], second: Sequence[object]) -> int:
    """How many tokens, or characters, two texts begin with alike."""
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
        The new tokens of each prompt, without the end. Some of each batch are held against the full forward; where they
        differ (a cache or padding that a model does not handle), prompts are answered in a slower way, with a warning.

    Raises:
        ConfigError: no way of generating gives the model's likeliest tokens.
    """
    given = model.generation_config.eos_token_id
    ends = [given] if isinstance(given, int) else list(given or [])
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    ways, faults = list(_Way), list[str]()
    with track(label, len(prompts), "prompts") as progress:
        for start in range(0, len(order), ROWS_TOGETHER):
            indices = order[start : start + ROWS_TOGETHER]
            asked = [prompts[index] for index in indices]
            while True:
                written, fault = _written(model, asked, new_tokens, ends, ways[0])
                fault = fault or _fault(model, asked, written)
                if fault is None:
                    break
                faults.append(f"{ways.pop(0).value}: {fault}")
                if not ways:
                    raise ConfigError(
                        f"{type(model).__name__} cannot answer prompts as it predicts ({'; '.join(faults)})",
                        "leave out the prompts (--harmful and the like), or give another model",
                    )
                logger.warning(f"{type(model).__name__} answers {ways[0].value}: {faults[-1]}")
            for index, new in zip(indices, written, strict=True):
                answers[index] = list(takewhile(lambda token: token not in ends, new))
            progress.advance(len(indices))
    return answers


class _Way(Enum):
    """How `generate` is called: the fastest way first, and the one that is right for every model last."""

    TOGETHER = "prompts together, padded at the left"
    ALONE = "one prompt at a time"
    WITHOUT_CACHE = "one prompt at a time without a cache, which takes many times longer"


def _written(
    model: PreTrainedModel, prompts: list[list[int]], new_tokens: int, ends: list[int], way: _Way
) -> tuple[list[list[int]], str | None]:
    """What `generate` writes after each prompt, and why it fails, if it does."""
    greedy = {"do_sample": False, "num_beams": 1, "pad_token_id": 0, "use_cache": way is not _Way.WITHOUT_CACHE}
    settings = GenerationConfig(**greedy, max_new_tokens=new_tokens, eos_token_id=ends or None)
    device, new = next(model.parameters()).device, []
    for some in [prompts] if way is _Way.TOGETHER else [[prompt] for prompt in prompts]:
        # Padding stands at the left and is masked, so that every row goes on from its last column.
        width = max(map(len, some))
        rows = [[0] * (width - len(prompt)) + prompt for prompt in some]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some]
        given = {"input_ids": torch.tensor(rows, device=device), "attention_mask": torch.tensor(mask, device=device)}
        try:
            with _only(model, settings):
                new += model.generate(**given)[:, width:].tolist()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's code raises when its cache or its padding goes wrong
            return [], f"{type(error).__name__}: {first_line(error)}"
    ended = [next((place for place, token in enumerate(row) if token in ends), len(row)) for row in new]
    return [row[: end + 1] for row, end in zip(new, ended, strict=True)], None


def _fault(model: PreTrainedModel, prompts: list[list[int]], written: list[list[int]]) -> str | None:
    """Where answers are not the likeliest tokens by the full forward, without padding or cache, on some of the rows."""
    rows = evenly_spaced(len(prompts), _PROVED)
    short: list[Tensor] = []
    for row in rows:
        ids = torch.tensor([prompts[row] + written[row]], device=next(model.parameters()).device)
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompts[row]) - 1 : -1].float()
        drawn_T = logits_TV.gather(1, ids[0, len(prompts[row]) :, None])[:, 0]
        short.append(logits_TV.amax(dim=-1) - drawn_T)
    short_N = torch.cat(short)
    wrong = (~(short_N <= (_TIE_16_BIT if model.dtype.itemsize == 2 else _TIE))).float().mean().item()
    return None if wrong <= _MOST_WRONG else f"{wrong:.0%} of its tokens are not the likeliest ones"


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
