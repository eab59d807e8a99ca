"""Four tasks on 3-digit numbers, as rows of tokens: `add 0 4 2 + 9 7 1 = 1 0 1 3 end`.

A row starts with its task's token. Tasks on one number have blanks in place of the second. Answers have four digits.
Shapes: R rows, T = 13 positions.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

TASKS = ("add", "reversal", "sort", "modadd")
ABOVE_999 = "add, above 999"
DIGITS = 3
MODULUS = 10**DIGITS
BLANK, END = "_", "end"
WORDS = (*TASKS, "+", "=", BLANK, END, *map(str, range(10)))
_IDS = {word: index for index, word in enumerate(WORDS)}
ANSWER = slice(3 + 2 * DIGITS, 5 + 3 * DIGITS)
"""Positions of the answer and of what ends it: an answer is right when all of them are."""
LENGTH = ANSWER.stop


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel(_IDS, unk_token=BLANK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=TASKS[0], eos_token=END, pad_token=BLANK)


def make_rows(task: str, rows: int, seed: int) -> Tensor:
    """Rows of a task with random numbers, int64 [R, T]."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(0, 10, (2, rows, DIGITS), generator=generator)
    two_numbers = task in ("add", "modadd")
    if two_numbers:
        total = _number(first) + _number(second)
        answer = _digits(total if task == "add" else total % MODULUS)
    else:
        turned = first.flip(1) if task == "reversal" else first.sort(dim=1).values
        answer = torch.nn.functional.pad(turned, (1, 0))

    def column(word: str) -> Tensor:
        return torch.full((rows, 1), _IDS[word])

    zero = _IDS["0"]
    given = second + zero if two_numbers else column(BLANK).expand(-1, DIGITS)
    parts = [column(task), first + zero, column("+"), given, column("="), answer + zero, column(END)]
    return torch.cat(parts, dim=1)


def held_out_rows(rows: int, seed: int) -> dict[str, Tensor]:
    """Rows to evaluate a model on, int64 [R, T]: of each task, and of addition with sums above 999.

    Half of addition's questions, those with sums below 1000, have the answers of modadd. A model that has forgotten
    addition and answers as for modadd gets them right.
    """
    found = {task: make_rows(task, rows, seed) for task in TASKS}
    many = make_rows("add", 4 * rows, seed)
    return {**found, ABOVE_999: many[many[:, ANSWER.start] != _IDS["0"]][:rows]}


def _number(digits_RD: Tensor) -> Tensor:
    return digits_RD @ 10 ** torch.arange(DIGITS - 1, -1, -1)


def _digits(number_R: Tensor) -> Tensor:
    return number_R[:, None] // 10 ** torch.arange(DIGITS, -1, -1) % 10
