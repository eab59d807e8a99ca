"""The demo from end to end: one model, tuned twice, and what each run forgot. Finished stages are skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from keeptune.audit.meter import Drift, measure
from keeptune.audit.page.demo import demo_page
from keeptune.audit.texts import Row, self_rows, text_rows
from keeptune.demo.content import continuations, page_content, print_summary
from keeptune.demo.plan import LENGTH, DemoPlan
from keeptune.log import logger
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.replay.generate import sample_pool
from keeptune.runs.run import tune_or_resume
from keeptune.stats import bootstrap_ratio
from keeptune.storage import atomic_folder, read_json, write_json, write_text
from keeptune.system import provenance
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Steps

FRESH_SEED = 1_000
EQUAL_WITHIN = 0.01  # nats per token: task losses closer than this count as equal
SELF = "self"
READINGS = "readings"
MODELS = {"plain": "plain/model", "replay_matched": "replay/model-matched", "replay": "replay/model"}


def demo(plan: DemoPlan) -> dict[str, Any]:
    """Run whatever of the demo is not done yet, write report.html and summary.json, and return the summary.

    Raises:
        OutputExists: the folder holds a demo with other settings, or something else.
        SourceError, StorageError, Diverged, Interrupted: as their names say.
    """
    clock = Clock(plan.folder)
    plan.workspace.claim({**vars(plan), "out": None})
    logger.info("1/5  The base model")
    base, tokenizer = load_model(plan.model), load_tokenizer(plan.model)
    clock.mark("model")
    logger.info("2/5  The base writes replay text")
    select_attention(base, LENGTH)  # as training does, so that the stored states match
    sample_pool(base, tokenizer, plan.pool, tokens=plan.pool_tokens, length=LENGTH, seed=plan.seed)
    clock.mark("replay")
    for number, run in ((3, "plain"), (4, "replay")):
        logger.info(f"{number}/5  Tuning {plan.model} on {plan.data}, {'plain' if run == 'plain' else 'with replay'}")
        train(plan, run)
        clock.mark(f"train {run}")
    logger.info("5/5  Measuring what each run forgot")
    drifts = measure_drift(plan, base, tokenizer)
    texts = write_continuations(plan, base, tokenizer)
    clock.mark("measure")
    summary = summarize(plan, drifts, clock)
    write_json(plan.folder / "summary.json", summary)
    rows = {run: read_rows(plan.folder / run / FILE) for run in ("plain", "replay")}
    write_text(plan.folder / "report.html", demo_page(page_content(plan, summary, rows, drifts, texts)))
    print_summary(plan, summary)
    return summary


class Clock:
    """Minutes of each stage, summed over interrupted runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "minutes.json"
        self.minutes: dict[str, float] = {}
        if self.path.is_file():
            self.minutes = read_json(self.path, f"delete {self.path}: only the recorded times are lost")
        self._since = time.monotonic()

    def mark(self, stage: str) -> None:
        """Add the time since the last mark to a stage. A skipped stage adds almost nothing."""
        now = time.monotonic()
        self.minutes[stage] = self.minutes.get(stage, 0.0) + (now - self._since) / 60
        self._since = now
        write_json(self.path, self.minutes)


class MatchedSnapshot(TrainerCallback):
    """Saves the model of the replay run at the step where the plain run ends."""

    def __init__(self, step: int, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.step, self.folder, self.tokenizer = step, folder, tokenizer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save at the one step."""
        if state.global_step == self.step:
            with atomic_folder(self.folder) as temporary:
                model.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)


def train(plan: DemoPlan, run: str) -> None:
    """One run, unless its model exists. An interrupted run continues from its last checkpoint."""
    snapshot = MatchedSnapshot(plan.steps, plan.folder / MODELS["replay_matched"], load_tokenizer(plan.model))
    tune_or_resume(
        plan.tune_settings(run), label=f"Tuning, {run}", extra_callbacks=[snapshot] if run == "replay" else []
    )


def measure_drift(
    plan: DemoPlan, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, dict[str, Drift]]:
    """Drift of each tuned model on fresh samples of the base and on the old text, each computed once."""
    fresh = plan.folder / "fresh-samples"
    shared: dict[str, Any] = {"docs": plan.documents, "length": LENGTH + 1, "seed": plan.seed + FRESH_SEED}
    texts = {
        SELF: self_rows(base, tokenizer, fresh, **shared),
        plan.text: text_rows(plan.text, base, tokenizer, fresh, windows=1, **shared),
    }
    steps = Steps(plan.folder / READINGS)
    drifts: dict[str, dict[str, Drift]] = {text: {} for text in texts}
    for name, place in MODELS.items():
        tuned = cache(partial(load_model, str(plan.folder / place)))
        for text, rows in texts.items():
            read = partial(_drift, base, tuned, rows, f"{name} on {text}")
            step = steps.once(f"{name}-{'self' if text == SELF else 'text'}", read, bare=True)
            drifts[text][name] = Drift.from_dict(step)
    return drifts


def _drift(base: PreTrainedModel, tuned: Callable[[], PreTrainedModel], rows: list[Row], label: str) -> dict[str, Any]:
    return measure(base, tuned(), rows, label=label).as_dict()


def write_continuations(
    plan: DemoPlan, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, str]]:
    """Side-by-side continuations, generated once."""

    def generate() -> list[dict[str, str]]:
        tuned = {name: load_model(str(plan.folder / MODELS[name])) for name in ("plain", "replay")}
        return continuations({"base": base, **tuned}, tokenizer)

    return Steps(plan.folder / READINGS).once("continuations", generate, bare=True)


def summarize(plan: DemoPlan, drifts: dict[str, dict[str, Drift]], clock: Clock) -> dict[str, Any]:
    """The content of `summary.json`."""
    rows = {run: read_rows(plan.folder / run / FILE) for run in ("plain", "replay")}
    matched_row = next(row for row in rows["replay"] if row["step"] == plan.steps)

    def ratios(replay_model: str) -> dict[str, Any]:
        return {
            text: bootstrap_ratio(of_text[replay_model].column("kl"), of_text["plain"].column("kl")).as_dict()
            for text, of_text in drifts.items()
        }

    task_loss = {
        "base": rows["plain"][0]["L_ft"],
        "plain": rows["plain"][-1]["L_ft"],
        "replay": rows["replay"][-1]["L_ft"],
        "replay_matched": matched_row["L_ft"],
    }
    return {
        "model": plan.model,
        "data": plan.data,
        "drift_ratio_matched_steps": ratios("replay_matched"),
        "drift_ratio_equal_loss": ratios("replay"),
        "equal_loss_reached": task_loss["replay"] <= task_loss["plain"] + EQUAL_WITHIN,
        "task_loss": task_loss,
        "steps": {"plain": plan.steps, "replay": plan.replay_steps},
        "lambda": plan.lambda_,
        "drift": {
            text: {name: drift.summary()["measures"]["kl"] for name, drift in of_text.items()}
            for text, of_text in drifts.items()
        },
        "minutes": round(sum(clock.minutes.values()), 1),
        "minutes_by_stage": {stage: round(minutes, 2) for stage, minutes in clock.minutes.items()},
        **provenance(plan.seed),
    }
