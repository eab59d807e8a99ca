"""Every checkpoint of a continual run on every column: the sums from which the score matrix is made.

The base stays loaded and one checkpoint at a time stands beside it: both read each text together, which gives the
drift of the checkpoint from the base as well. The base's forward pass is thus repeated for every checkpoint, and its
row is taken from the first one's reading.

Shapes: T stages, L = T + 1 rows, D documents, I items, C options of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.items import Item
from keeptune.audit.meter import Drift, measure
from keeptune.audit.stages.matrix import Column
from keeptune.audit.tasks import ITEMS_LEFT_OUT, UNSCORED_FIX, Task, choose, score_choices
from keeptune.audit.texts import Row
from keeptune.audit.verdict import noise_floor, require_finite
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import fingerprint
from keeptune.models.vocabulary import check_vocabularies, vocabularies
from keeptune.workspace import Steps


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What one checkpoint and the base beside it said, column by column."""

    fingerprint: str
    """Of the checkpoint's weights."""
    texts: dict[str, Drift]
    tasks: dict[str, list[list[int] | None]]
    """For every item whether the base and whether the checkpoint chose the right option; None: it was left out."""


def read_checkpoint(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: str,
    texts: dict[str, list[Row]],
    tasks: dict[str, Task],
    steps: Steps,
) -> Readings:
    """Load one checkpoint and measure it on every text and task; what an earlier run finished is not done again.

    Args:
        tokenizer: the base's.
        steps: bound to the base and to all settings that the rows and items do not show.

    Raises:
        ConfigError: it predicts over other tokens than the base.
        SourceError: it cannot be read.
        Diverged: its predictions are no numbers.
    """
    model = load_model(checkpoint)
    check_vocabularies(vocabularies(base, model, tokenizer, load_tokenizer(checkpoint)))
    mark = fingerprint(model)
    of_checkpoint = steps.of(checkpoint=mark)

    def read(name: str) -> dict[str, Any]:
        drift = measure(base, model, texts[name], label=f"Measuring {checkpoint} on {name}")
        require_finite(drift, name)
        return drift.as_dict()

    drifts = {}
    for name, rows in texts.items():
        of_text = of_checkpoint.of(rows=rows)
        drifts[name] = Drift.from_dict(of_text.once(f"stages {mark[:12]} text {name}", partial(read, name)))
    answers = {}
    for name, task in tasks.items():
        ask = partial(right_answers, base, model, tokenizer, task.items, label=f"Asking {checkpoint} {name}")
        bound = of_checkpoint.of(items=[asdict(item) for item in task.items])
        answers[name] = bound.once(f"stages {mark[:12]} task {name}", ask)
    return Readings(fingerprint=mark, texts=drifts, tasks=answers)


def right_answers(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[Item], label: str
) -> list[list[int] | None]:
    """For every item 1 or 0, the base's first: whether the likeliest option per character is the right one.

    They are asked plainly, not as a chat turn: base models and instruct models then share one scale. None stands for
    an item that is longer than the context or has no finite score.
    """
    scores = score_choices(base, tuned, tokenizer, items, chat=False, label=label)
    return [
        None if score_2C is None else [int(choice == item.right) for choice in choose(item, score_2C)]
        for item, score_2C in zip(items, scores, strict=True)
    ]


def text_column(name: str, stage: int | None, drifts: Sequence[Drift], floor: dict[str, Any]) -> Column:
    """A text's score is −CE, nats per token.

    Args:
        drifts: one a checkpoint, over the same documents; floor: of the base on this text, as `noise_floor` gives it.
    """
    rows = [drifts[0].column("ce_base"), *(drift.column("ce") for drift in drifts)]
    ce_floor = floor["measures"]["ce_change"]["floor"]
    return Column(name=name, stage=stage, sums_LD=-np.stack(rows), weights_D=drifts[0].tokens_D, floor=ce_floor)


def task_column(name: str, stage: int | None, answers: Sequence[list[list[int] | None]]) -> Column:
    """A task's score is accuracy, over the items that every checkpoint could be asked.

    Raises:
        SourceError: there is no such item.
    """
    asked = [place for place, of_item in enumerate(zip(*answers, strict=True)) if None not in of_item]
    if not asked:
        raise SourceError(f"no item of {name} can be scored", UNSCORED_FIX)
    if left_out := len(answers[0]) - len(asked):
        logger.warning(f"{name}: {left_out} {ITEMS_LEFT_OUT}")
    right_TI2 = np.array([[of_checkpoint[place] for place in asked] for of_checkpoint in answers], dtype=np.float64)
    sums_LI = np.concatenate([right_TI2[:1, :, 0], right_TI2[:, :, 1]])
    return Column(name=name, stage=stage, sums_LD=sums_LI, weights_D=np.ones(len(asked)), floor=0.0)


def floors_of(base: PreTrainedModel, texts: dict[str, list[Row]], steps: Steps) -> dict[str, dict[str, Any]]:
    """The noise floor of every text."""
    floors = {}
    for name, rows in texts.items():
        read = partial(noise_floor, base, rows, label=f"Measuring the noise floor on {name}")
        floors[name] = steps.of(rows=rows).once(f"stages noise floor {name}", read)
    return floors
