"""Any task of the EleutherAI harness (lm-eval, an extra) asked of both models and compared item by item.

Shapes: I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.stats import bootstrap_ratio, mcnemar
from keeptune.workspace import Steps

# Of an item: the value of each metric.
Scores = dict[str, dict[str, float]]

_BATCH_ROWS = 8


def check_harness(tasks: Sequence[str]) -> None:
    """Refuse tasks that cannot be run, before any model is loaded.

    Raises:
        ConfigError: the harness is not installed.
        SourceNotFound: it has no task of a name, or there is no such file.
        SourceError: a file that describes no task.
    """
    if not tasks:
        return
    if find_spec("lm_eval") is None:
        raise ConfigError("--lm-eval needs the harness lm-eval", "install it: pip install 'keeptune[eval]'")
    for task in tasks:
        _manager_of(task)


def measure_harness(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    limit: int,
    steps: Steps,
) -> dict[str, Any]:
    """The part of a report that holds the harness's tasks, `lm_eval`; empty without tasks.

    Args:
        tasks: names of the harness's tasks or groups, or YAML files that describe one.
        limit: items of each task at most, the first ones, as the harness has it.

    Returns:
        For each task and metric: `items`, `base` and `tuned` (means), `change` (tuned − base with a 95 % paired
        bootstrap interval over items), `higher_is_better`, and for metrics that are 0 or 1, `right_to_wrong`,
        `wrong_to_right` and `mcnemar_p`.

    Raises:
        SourceError: the harness cannot run a task.
    """
    results = {}
    for task in tasks:
        scores, better = {}, {}
        for role, model in (("base", base), ("tuned", tuned)):
            ask = partial(_ask, model, tokenizer, task, limit, f"Asking {task} of the {role}")
            answers = steps.of(task=task, limit=limit).once(f"lm-eval {Path(task).stem} {role}", ask)
            scores[role], better = answers["scores"], answers["higher_is_better"]
        results[task] = {
            metric: {**compared(scores["base"], scores["tuned"], metric), "higher_is_better": better.get(metric)}
            for metric in sorted({metric for item in scores["base"].values() for metric in item})
        }
    return {"lm_eval": {"limit": limit, "tasks": results}} if results else {}


def compared(base: Scores, tuned: Scores, metric: str) -> dict[str, Any]:
    """One metric on the items that both models have it on.

    Raises:
        SourceError: there is none.
    """
    items = [item for item in base if metric in base[item] and metric in tuned.get(item, {})]
    if not items:
        raise SourceError(f"no item has {metric} of both models", "check the task's metrics")
    base_I, tuned_I = (np.array([scores[item][metric] for item in items]) for scores in (base, tuned))
    change = bootstrap_ratio(tuned_I - base_I, np.ones(len(items)))
    means = {"base": float(base_I.mean()), "tuned": float(tuned_I.mean())}
    result: dict[str, Any] = {"items": len(items), **means, "change": change.ends()}
    if set(np.concatenate([base_I, tuned_I])) <= {0.0, 1.0}:
        lost, gained = int((base_I > tuned_I).sum()), int((tuned_I > base_I).sum())
        result |= {"right_to_wrong": lost, "wrong_to_right": gained, "mcnemar_p": mcnemar(lost, gained)}
    return result


def _ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, limit: int, label: str
) -> dict[str, Any]:
    from lm_eval import simple_evaluate  # noqa: PLC0415 — an extra, and slow to import
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    name, manager = _manager_of(task)
    logger.info(label)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH_ROWS)
    try:
        given = {"tasks": [name], "task_manager": manager, "limit": limit, "bootstrap_iters": 0, "log_samples": True}
        # Its default seeds would reset the generators of the whole process.
        unseeded = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))
        found = simple_evaluate(model=harness, **given, **unseeded)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "check that its data can be fetched, and that it runs in lm-eval"
        raise SourceError(f"lm-eval cannot run {task}: {reason}", fix) from error
    scores: Scores = {}
    better: dict[str, bool] = {}
    for leaf, samples in found["samples"].items():
        better |= found["higher_is_better"].get(leaf, {})
        for sample in samples:
            values = {metric: sample[metric] for metric in sample["metrics"] if np.isscalar(sample[metric])}
            scores[f"{leaf} {sample['doc_id']}"] = {metric: float(value) for metric, value in values.items()}
    return {"scores": scores, "higher_is_better": better}


def _manager_of(task: str) -> tuple[str, Any]:
    """The name of a task, and what knows how to find it."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    path = Path(task).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        manager = TaskManager()
        if task not in manager.task_index:
            raise SourceNotFound(f"lm-eval has no task {task}", "see `lm-eval ls tasks`, or name a YAML file")
        return task, manager
    if not path.is_file():
        raise SourceNotFound(f"no task file at {path}", "check the path after --lm-eval")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is not YAML that can be read", "describe a task as lm-eval has it") from error
    if not isinstance(content, dict) or not isinstance(content.get("task"), str):
        raise SourceError(f"{path} names no task", "add a line `task: NAME`, as lm-eval has it")
    return content["task"], TaskManager(include_path=str(path.parent), include_defaults=False)
