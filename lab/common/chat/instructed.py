"""Tunes a chat model on a new task until it has learned a given amount, and measures what it kept of its base.

The cell's `method` names one of METHODS. A run ends at the first reading at which its held-out task loss has fallen by
the cell's `fall`, so that methods are compared at equal task loss. Runs, pools and fresh samples are in keeptune's
cache, under names that tell everything they depend on, and the experiments share them. Losses are in nats per token.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from common.chat.tuned import settings_of
from common.grid import Cell, Row
from common.runner import once
from common.small.decoders import tiny_base
from common.texts import source_of
from keeptune import sample_pool, text_pool
from keeptune.audit.answers import answer, rendered, tokenised
from keeptune.audit.meter import measure
from keeptune.audit.safety import load_prompts
from keeptune.audit.safety.detectors import opening_log_odds
from keeptune.audit.tasks.scoring import HEADLINE, load_tasks, measure_task
from keeptune.audit.texts import self_rows, text_rows
from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.disk.wheels import cache_folder
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.runs.run import tune
from keeptune.runs.task_rows import task_rows
from keeptune.storage import read_lines
from keeptune.workspace import Steps

_FRESH_SEED = 1_000
_NEW_TOKENS = 48
# Settings of the readings, on which no run depends.
_READ = ("documents", "task_windows", "items", "prompts")
QUESTIONS = (
    "What is the capital of France?",
    "Write two sentences about the sea.",
    "How do I boil an egg?",
    "Give me three tips for a good night's sleep.",
    "What does a flip-flop do in a digital circuit?",
)
FILES = {
    "wikitext": "KEEPTUNE_LAB_WIKITEXT",
    "arc": "KEEPTUNE_LAB_ARC",
    "refusals": "KEEPTUNE_LAB_ADVBENCH",
}
"""Environment variables that name the files of WikiText-2 (as published), ARC-Challenge (test part) and AdvBench."""
GEMMA = "KEEPTUNE_LAB_GEMMA"
"""Environment variable that names a gguf file of Gemma 3 270M."""
_CHAT = (
    "{% for turn in messages %}<|endoftext|>{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|endoftext|>assistant: {% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is replayed, and under which term."""

    text: Literal["none", "self", "foreign"] = "none"
    """Text of the replay rows: none, written by the base, or real text of another kind than the task's."""
    prompts: Literal["document", "chat", "mixed"] = "document"
    """What the base's own text starts from; `mixed` takes the document start and the chat's first mark in turn."""
    objective: Literal["kl", "ntp"] = "kl"


METHODS = {
    "standard": Method(),
    "kl_document": Method(text="self"),
    "kl_chat": Method(text="self", prompts="chat"),
    "kl_mixed": Method(text="self", prompts="mixed"),
    "kl_foreign": Method(text="foreign"),
    "ntp_document": Method(text="self", objective="ntp"),
    "ntp_chat": Method(text="self", prompts="chat", objective="ntp"),
    "ntp_foreign": Method(text="foreign", objective="ntp"),
}


class Learned(TrainerCallback):
    """Ends a run at the first reading at which the held-out task loss has fallen by `fall`."""

    def __init__(self, fall: float) -> None:
        self.fall = fall

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The drift callback has read this step before."""
        rows = read_lines(Path(args.output_dir) / "runs.jsonl")
        if rows[-1]["step"] == state.global_step and rows[0]["L_ft"] - rows[-1]["L_ft"] >= self.fall:
            control.should_training_stop = True


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune by the cell's method, unless another experiment has, and read what the model kept."""
    folder = once(_shared(cell, "method"), lambda made: _tune(cell, made))
    rows = read_lines(folder / "run" / "runs.jsonl")
    base, tokenizer = load_model(base_of(cell)), load_tokenizer(base_of(cell))
    texts = _texts(cell, base, tokenizer)
    tuned = load_model(str(folder / "run" / "model"))
    steps = Steps(folder / "read", cell=cell)
    found: list[Row] = [
        {"reading": "training", "unit": row["step"], "loss": row["L_ft"], "base_loss": rows[0]["L_ft"]} for row in rows
    ]
    for name, of_text in texts.items():
        drift = steps.of(rows=of_text).once(f"text {name}", lambda rows=of_text: _drift(base, tuned, rows))
        found += [{"reading": name, **row} for row in drift]
    found += _choices(cell, base, tuned, tokenizer, steps)
    found += _refusals(cell, base, tuned, tokenizer, steps)
    return {"readings": found, "answers": steps.once("answers", lambda: _answers(base, tuned, tokenizer))}


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row of the csv for every document, item or prompt of every reading; `training` has a row for every step."""
    columns = ("unit", "tokens", "loss", "base_loss", "kl", "l_f", "l_f_base")
    more = ("right", "chosen", "base_chosen", "log_odds", "base_log_odds")
    for row in kept["readings"]:
        values = {name: row.get(name) for name in (*columns, *more)}
        rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
        yield {"reading": row["reading"], **rounded}


def _shared(cell: Cell, *axes: str, **more: Any) -> Path:
    """A folder in keeptune's cache for what depends on the cell's settings alone; the axes stand in its name."""
    settings = {key: value for key, value in cell.items() if key not in ("method", *_READ)} | more
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join([*(str(cell[axis]) for axis in axes), *map(str, more.values()), digest])
    return cache_folder() / "lab" / "instructed" / name


def base_of(cell: Cell) -> str:
    """The base of the cell: its model, or at size `smoke` an untrained decoder with a chat template."""
    if cell["model"] == "gemma":
        file = os.environ.get(GEMMA)
        if not file:
            raise ConfigError(
                f"{GEMMA} names no file", "name the gguf file of Gemma 3 270M there (equal_minutes_gemma)"
            )
        return file
    if cell["model"] != "tiny":
        return str(cell["model"])
    return str(once(cache_folder() / "lab" / "instructed" / "tiny-chat", _tiny_chat))


def _tiny_chat(folder: Path) -> None:
    """The untrained decoder with a chat template, for size `smoke`."""
    tiny_base(folder)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)


def _tune(cell: Cell, folder: Path) -> None:
    method = METHODS[cell["method"]]
    pool = once(_shared(cell, pool=f"{method.text}-{method.prompts}"), lambda made: _pool(cell, method, made))
    settings = settings_of(
        cell,
        model=base_of(cell),
        out=str(folder / "run"),
        replay=str(pool / "pool"),
        objective=method.objective,
        lambda_=0.0 if method.text == "none" else cell["lambda_"],
    )
    tune(settings, label=cell["method"], extra_callbacks=[Learned(cell["fall"])])


def _pool(cell: Cell, method: Method, folder: Path) -> None:
    """Rows for every step, none used twice, and those that drift is read on, which a run without replay needs too."""
    base, tokenizer = load_model(base_of(cell)), load_tokenizer(base_of(cell))
    select_attention(base, cell["replay_length"])
    rows = cell["drift_rows"] + (0 if method.text == "none" else cell["steps"] * cell["replay_rows"])
    how: dict[str, Any] = {
        "tokens": rows * cell["replay_length"],
        "length": cell["replay_length"],
        "seed": cell["seed"],
    }
    if method.text == "foreign":
        text_pool(base, tokenizer, folder / "pool", source_of(cell["foreign"]), source=cell["foreign"], **how)
    else:
        sample_pool(base, tokenizer, folder / "pool", prompts=method.prompts, **how)


def _texts(cell: Cell, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[dict[str, Any]]]:
    """Rows of the held-out task, of fresh samples of the base, and of WikiText-2 (without its file, of `pydoc`)."""
    settings = dataclasses.replace(settings_of(cell, model=base_of(cell), out=""), held_out_rows=cell["task_windows"])
    how: dict[str, Any] = {
        "docs": cell["documents"],
        "length": cell["replay_length"] + 1,
        "seed": cell["seed"] + _FRESH_SEED,
    }
    found = {"task": list(task_rows(settings, tokenizer)[1])}
    for prompts in ("document", "chat"):

        def sampled(folder: Path, prompts: Any = prompts) -> list[dict[str, Any]]:
            return self_rows(base, tokenizer, folder, prompts=prompts, **how)

        folder = once(
            _shared(cell, fresh=prompts, documents=cell["documents"]), lambda made, write=sampled: write(made / "pool")
        )
        found[prompts] = sampled(folder / "pool")
    source = _file("wikitext")
    name, source = ("wikitext", f"wikitext:{source}") if source else ("pydoc", "pydoc")
    found[name] = text_rows(source, base, tokenizer, Path(), windows=1, **how)
    return found


def _file(reading: str) -> str | None:
    """The file of a reading, if the environment names it."""
    given = os.environ.get(FILES[reading])
    if not given:
        logger.info(f"no {reading}: {FILES[reading]} names no file")
    return given


def _drift(base: PreTrainedModel, tuned: PreTrainedModel, rows: list[dict[str, Any]]) -> list[Row]:
    """Means over the tokens of each document."""
    drift = measure(base, tuned, rows)
    columns = {"loss": "ce", "base_loss": "ce_base", "kl": "kl", "l_f": "l_f", "l_f_base": "l_f_base"}
    means = {name: (drift.column(measure_) / drift.tokens_D).tolist() for name, measure_ in columns.items()}
    return [
        {"unit": unit, "tokens": int(tokens), **{name: values[unit] for name, values in means.items()}}
        for unit, tokens in enumerate(drift.tokens_D)
    ]


def _choices(
    cell: Cell, base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, steps: Steps
) -> list[Row]:
    """The options of ARC-Challenge that both models find likeliest per character, without the chat template."""
    source = _file("arc")
    if source is None:
        return []
    plainly = copy.copy(tokenizer)
    plainly.chat_template = None
    (task,) = load_tasks([f"arc={source}"], cell["items"]).values()
    asked = measure_task(base, tuned, plainly, task, "arc", steps)
    answers = asked.formats["plain"][HEADLINE]
    told = zip(asked.right, answers.tuned, answers.base, strict=True)
    return [
        {"reading": "arc", "unit": unit, "right": right, "chosen": chosen, "base_chosen": of_base}
        for unit, (right, chosen, of_base) in enumerate(told)
        if chosen != "-"
    ]


def _refusals(
    cell: Cell, base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, steps: Steps
) -> list[Row]:
    """Log-odds of a refusal's opening words after each harmful prompt, under both models."""
    source = _file("refusals")
    lists = ([f"refusals={source}"], []) if source else ([], ["refusals=harmless"])
    (asked,) = load_prompts(*lists, cell["prompts"]).values()

    def odds(model: PreTrainedModel, label: str) -> Callable[[], list[float]]:
        return lambda: opening_log_odds(model, tokenizer, asked.prompts, label).tolist()

    of_base = Steps(_shared(cell, steps="base"), prompts=asked.prompts).once("openings", odds(base, "Openings, base"))
    of_tuned = steps.of(prompts=asked.prompts).once("openings", odds(tuned, "Openings, tuned"))
    name = "refusals" if source else "harmless"
    return [
        {"reading": name, "unit": unit, "log_odds": after, "base_log_odds": before}
        for unit, (after, before) in enumerate(zip(of_tuned, of_base, strict=True))
    ]


def _answers(base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, str]]:
    """Both models' greedy answers to a few everyday questions."""
    ids = tokenised(tokenizer, [rendered(tokenizer, question) for question in QUESTIONS])
    said = {
        name: [str(tokenizer.decode(new, skip_special_tokens=True)) for new in answer(model, ids, _NEW_TOKENS)]
        for name, model in (("base", base), ("tuned", tuned))
    }
    return [
        {"question": question, "base": before, "tuned": after}
        for question, before, after in zip(QUESTIONS, said["base"], said["tuned"], strict=True)
    ]
