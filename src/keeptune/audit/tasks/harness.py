"""Any task of the EleutherAI harness (lm-eval, an extra) asked of both models and compared item by item.

Shapes: I items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.paired import difference
from keeptune.audit.section import Cost, Loaded, Measured, Section
from keeptune.audit.tasks.section import TaskSettings
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.report.codec import once
from keeptune.report.document import SectionRecord
from keeptune.report.finding import About, Finding, Level, found
from keeptune.report.view import View, default_view
from keeptune.stats import bootstrap_ratio, mcnemar

_BATCH_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class HarnessSettings(TaskSettings):
    """The tasks of lm-eval."""

    lm_eval: list[str] = field(default_factory=list)
    """A task of the lm-eval harness (pip install 'keeptune[eval]'), or a YAML file that describes one; its first
    --items questions. Repeat it for more."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model made of a task."""

    scores: dict[str, dict[str, float]]
    """Of each item the value of each metric."""
    higher_is_better: dict[str, bool]


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


class Harness(Section[HarnessSettings]):
    """Change of every metric of every task of lm-eval."""

    name, title = "lm_eval", "Tasks of lm-eval"

    def __init__(self, settings: HarnessSettings) -> None:
        super().__init__(settings)
        check_harness(settings.lm_eval)

    def not_asked(self) -> str:
        """Why there is nothing to measure."""
        return "" if self.settings.lm_eval else "no --lm-eval is given"

    def cost(self) -> Cost:
        """How much a task reads, lm-eval alone knows."""
        return Cost(items=len(self.settings.lm_eval) * self.settings.items)

    def measure(self, loaded: Loaded) -> Measured:
        """Every task, each model's answers in a step of their own.

        Raises:
            SourceError: the harness cannot run a task.
        """
        findings, limit = list[Finding](), self.settings.items
        for task in self.settings.lm_eval:
            answers = {}
            for role, model in loaded.models.items():
                ask = partial(_ask, model, loaded.tokenizer, task, limit, f"Asking {task} of the {role}")
                step = loaded.steps.of(task=task, limit=limit)
                answers[role] = once(step, f"lm-eval {Path(task).stem} {role}", Answers, ask)
            findings += harness_findings(self.name, Path(task).stem, answers["base"], answers["tuned"])
        methods = [f"lm-eval: the first {limit:,} items of each task at most; an interval is over items."]
        return Measured(findings=findings, methods=methods)

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """A table; metrics of different kinds share no axis."""
        prose = "The same items asked of both models by the lm-eval harness; a change is over items that both have."
        return default_view(record, findings, prose, charts=[])


def harness_findings(section: str, task: str, base: Answers, tuned: Answers) -> Iterator[Finding]:
    """The change of each metric on the items that both models have it on.

    Raises:
        SourceError: there is none.
    """
    for metric in sorted({metric for item in base.scores.values() for metric in item}):
        items = [item for item in base.scores if metric in base.scores[item] and metric in tuned.scores.get(item, {})]
        if not items:
            raise SourceError(f"no item has {metric} of both models", "check the task's metrics")
        base_I, tuned_I = (np.array([of.scores[item][metric] for item in items]) for of in (base, tuned))
        higher = base.higher_is_better.get(metric)
        about: About = {
            "base": Level(value=float(base_I.mean())), "tuned": Level(value=float(tuned_I.mean())), "part": metric,
            "better": None if higher is None else "higher" if higher else "lower", "headline": True,
        }  # fmt: skip
        p, change = None, bootstrap_ratio(tuned_I - base_I, np.ones(len(items)))
        if set(np.concatenate([base_I, tuned_I])) <= {0.0, 1.0}:
            lost, gained = int((base_I > tuned_I).sum()), int((tuned_I > base_I).sum())
            p, about = mcnemar(lost, gained), {**about, "lost": lost, "gained": gained}
            change = difference(lost, gained, len(items))
        yield found(section, task, "lm_eval", change, "item", p=p, **about)


def _ask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, limit: int, label: str) -> Answers:
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
    scores: dict[str, dict[str, float]] = {}
    better: dict[str, bool] = {}
    for leaf, samples in found["samples"].items():
        better |= found["higher_is_better"].get(leaf, {})
        for sample in samples:
            values = {metric: sample[metric] for metric in sample["metrics"] if np.isscalar(sample[metric])}
            scores[f"{leaf} {sample['doc_id']}"] = {metric: float(value) for metric, value in values.items()}
    return Answers(scores=scores, higher_is_better=better)


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
