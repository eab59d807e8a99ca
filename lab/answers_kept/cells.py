"""Fine-tunes a chat model that refuses harmful requests on news or on worked questions, and asks it on the way which
option of ARC-Challenge it finds likeliest, and whether it still refuses (Kalajdzievski 2024).

The base is SmolLM2 after a short tuning of its own (`refusing`), since SmolLM2 as published refuses next to nothing.

Shapes: C options of an item.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from common.chat.instructed import QUESTIONS, base_of
from common.chat.tuned import settings_of
from common.grid import Cell, Row
from common.runner import once
from keeptune import sample_pool
from keeptune.audit.abilities.conversation import harmful
from keeptune.audit.answers import answer, rendered, shared_prefix, tokenised
from keeptune.audit.meter import MEASURES, batched
from keeptune.audit.safety import load_prompts
from keeptune.audit.safety.detectors import opening_log_odds, refuses
from keeptune.audit.tasks.items import Item
from keeptune.audit.tasks.scoring import load_tasks
from keeptune.log import logger, track
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import autocast, head_of, select_attention, training_dtype
from keeptune.objective.drift import token_drift
from keeptune.runs.run import tune
from keeptune.stats import Array
from keeptune.storage import write_json, write_text

ARC = "KEEPTUNE_LAB_ARC"
"""Environment variable that names the test part of ARC-Challenge, jsonl; without it no questions are asked."""
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot help with this request, because it could hurt someone.",
    "I'm not able to assist with that. If you are in trouble, please talk to someone you trust.",
    "Sorry, I can't do that.",
)
_ANSWER_TOKENS = 48
_BATCH_TOKENS = 4096


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune the refusing base on the cell's text, with a reading of the base and one every `read_every` steps."""
    shutil.rmtree(home / "run", ignore_errors=True)
    shared, seed = home.parent / "shared", cell["seed"]
    base = once(shared / f"refusing-{seed}", lambda made: refusing(cell, made)) / "run" / "model"
    reader = Reader(cell, load_tokenizer(str(base)))
    # Every arm of a seed starts from this base.
    of_base = once(shared / f"read-{seed}", lambda made: reader.keep(load_model(str(base)), made))
    reader.found = json.loads((of_base / "found.json").read_text(encoding="utf-8"))
    replay: dict[str, Any] = {"lambda_": 0.0}
    if cell["replayed"] == "kl":
        replay = {"replay": str(once(shared / f"pool-{seed}", lambda made: write_pool(cell, base, made)) / "pool")}
    settings = settings_of(cell, model=str(base), out=str(home / "run"), **replay)
    tune(settings, label=home.name, extra_callbacks=[reader])
    shutil.rmtree(home / "run" / "model")
    return reader.found


def refusing(cell: Cell, folder: Path) -> None:
    """Tune the cell's model to refuse keeptune's own harmful requests, and to go on answering its harmless ones."""
    name = base_of(cell)
    model, tokenizer = load_model(name), load_tokenizer(name)
    (asked,) = load_prompts([], ["harmless"], cell["taught"]).values()
    said = answers(model, tokenizer, asked.prompts, "what the base answers")
    rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(asked.prompts, said, strict=True) if text]
    rows += [
        {"prompt": item.prompt, "completion": REFUSALS[place % len(REFUSALS)]}
        for place, item in enumerate(harmful()[: cell["taught"]])
    ]
    write_text(folder / "requests.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    own = {**cell, **cell["refusal_tuning"], "lora": None, "lambda_": 0.0, "sft": {}}
    settings = settings_of(own, model=name, out=str(folder / "run"), data=str(folder / "requests.jsonl"))
    tune(settings, label="learning to refuse")


def write_pool(cell: Cell, base: Path, folder: Path) -> None:
    """A pool with a replay row for every use, which both texts of a seed share."""
    model, tokenizer = load_model(str(base)), load_tokenizer(str(base))
    select_attention(model, cell["replay_length"])
    tokens = (cell["steps"] * cell["replay_rows"] + cell["drift_rows"]) * cell["replay_length"]
    sample_pool(model, tokenizer, folder / "pool", tokens=tokens, length=cell["replay_length"], seed=cell["seed"])


class Reader(TrainerCallback):
    """Asks the model in training: ARC's questions, harmful and harmless requests, a few everyday questions."""

    def __init__(self, cell: Cell, tokenizer: PreTrainedTokenizerBase) -> None:
        self.cell, self.tokenizer = cell, tokenizer
        self.items = questions(cell)
        requests = load_prompts(["harmful=harmbench"], ["harmless=harmless"], cell["prompts"])
        self.requests = {name: found.prompts for name, found in requests.items()}
        self.found: dict[str, list[Row]] = {"readings": [], "answers": []}

    def keep(self, model: PreTrainedModel, folder: Path) -> None:
        """Read the base, and keep what was found in a folder."""
        self.read(0, model)
        write_json(folder / "found.json", self.found)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Read every `read_every` steps."""
        if state.global_step % self.cell["read_every"] == 0:
            self.read(state.global_step, model)

    def read(self, step: int, model: PreTrainedModel) -> None:
        """Append a row for every item and request."""
        chosen = choices(model, self.tokenizer, self.items, f"ARC, step {step}")
        for unit, (item, option) in enumerate(zip(self.items, chosen, strict=True)):
            self.found["readings"].append(
                {"step": step, "reading": "arc", "unit": unit, "right": item.right, "chosen": option}
            )
        for name, prompts in self.requests.items():
            odds = opening_log_odds(model, self.tokenizer, prompts, f"{name}, step {step}")
            said = answers(model, self.tokenizer, prompts, f"{name}, step {step}")
            for unit, (text, odd) in enumerate(zip(said, odds.tolist(), strict=True)):
                refused = {"refused": int(refuses(text)), "log_odds": odd}
                self.found["readings"].append({"step": step, "reading": name, "unit": unit, **refused})
        # Answers to harmful requests are counted, and not kept.
        for question, text in zip(QUESTIONS, answers(model, self.tokenizer, QUESTIONS, "questions"), strict=True):
            self.found["answers"].append({"step": step, "question": question, "answer": text})


def questions(cell: Cell) -> list[Item]:
    """The items of ARC-Challenge, if the environment names its file."""
    source = os.environ.get(ARC)
    if not source:
        logger.info(f"no questions: {ARC} names no file")
        return []
    (task,) = load_tasks([f"arc={source}"], cell["items"]).values()
    return task.items


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: tuple[str, ...] | list[str], label: str
) -> list[str]:
    """Greedy answers in the chat template."""
    ids = tokenised(tokenizer, [rendered(tokenizer, prompt) for prompt in prompts])
    return [str(tokenizer.decode(new, skip_special_tokens=True)) for new in answer(model, ids, _ANSWER_TOKENS, label)]


def choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[Item], label: str) -> list[int]:
    """The option of each item that the model finds likeliest per character, asked plainly.

    As `keeptune.audit.tasks` asks two models at once; here the options of a question share its keys and values.
    """
    plainly = copy.copy(tokenizer)
    plainly.chat_template = None
    asked = [(place, *split_rows(plainly, item)) for place, item in enumerate(items)]
    chosen = dict.fromkeys(range(len(items)), 0)
    model.eval()
    with track(label, len(items), "items") as progress:
        for batch in batched(asked, lambda row: len(row[1]) + sum(map(len, row[2])), _BATCH_TOKENS):
            for (place, _, options), score_C in zip(batch, option_scores(model, batch), strict=True):
                characters = np.array([len(choice) for choice in items[place].choices])
                chosen[place] = int(np.argmax(score_C[: len(options)] / characters))
            progress.advance(len(batch))
    model.train()
    return list(chosen.values())


def split_rows(tokenizer: PreTrainedTokenizerBase, item: Item) -> tuple[list[int], list[list[int]]]:
    """The tokens that all options of an item follow, and for each option the last of them and its own."""
    prompt = f"Question: {item.question}\nAnswer:"
    asked, *rows = tokenizer([prompt, *(f"{prompt} {choice}" for choice in item.choices)], verbose=False)["input_ids"]
    shared = min(shared_prefix(asked, ids) for ids in rows)
    return asked[: shared - 1], [ids[shared - 1 :] for ids in rows]


@torch.no_grad()
def option_scores(model: PreTrainedModel, batch: list[tuple[int, list[int], list[list[int]]]]) -> list[Array]:
    """The log-likelihood of every option, fp64 [C] an item: questions are read once, then all options behind them."""
    device, owner = next(model.parameters()).device, []
    questions_BP = pad([question for _, question, _ in batch]).to(device)
    rows = []
    for place, (_, _, options) in enumerate(batch):
        owner += [place] * len(options)
        rows += options
    length_B = torch.tensor([len(question) for _, question, _ in batch], device=device)
    seen_BP = torch.arange(questions_BP.shape[1], device=device) < length_B[:, None]
    options_RT = pad(rows).to(device)
    length_R = torch.tensor([len(row) - 1 for row in rows], device=device)
    mask_RT = torch.arange(options_RT.shape[1] - 1, device=device) < length_R[:, None]
    decoder = model.get_decoder()
    with autocast(device, training_dtype(model)):
        cache = decoder(input_ids=questions_BP, attention_mask=seen_BP.long(), use_cache=True).past_key_values
        cache.batch_select_indices(torch.tensor(owner, device=device))
        hidden_RTD = decoder(
            input_ids=options_RT[:, :-1],
            attention_mask=torch.cat([seen_BP[owner], mask_RT], dim=1).long(),
            position_ids=length_B[owner][:, None] + torch.arange(mask_RT.shape[1], device=device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    hidden_ND, head, target_N = hidden_RTD[mask_RT], head_of(model), options_RT[:, 1:][mask_RT]
    values_NM = token_drift(hidden_ND, head, hidden_ND, head, target_N, training_dtype(model))
    of_rows = torch.split(-values_NM[:, MEASURES.index("ce")].cpu(), length_R.tolist())
    scores: list[list[float]] = [[] for _ in batch]
    for place, of_row in zip(owner, of_rows, strict=True):
        scores[place].append(float(of_row.sum()))
    return [np.array(score) for score in scores]


def pad(rows: list[list[int]]) -> Tensor:
    """Rows of tokens, padded on the right: int64 [R, T]."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row of the csv for every item and request of every reading."""
    columns = ("step", "reading", "unit", "right", "chosen", "refused", "log_odds")
    for row in kept["readings"]:
        yield {name: round(row[name], 4) if name == "log_odds" and name in row else row.get(name) for name in columns}
