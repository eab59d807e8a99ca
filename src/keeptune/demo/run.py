"""The main job from end to end: one model, tuned twice, and what each forgot. Every stage done before is skipped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from keeptune.audit.meter import Drift, measure
from keeptune.audit.page.demo import demo_page
from keeptune.audit.texts import self_rows, text_rows
from keeptune.demo.content import continuations, page_content, print_summary
from keeptune.demo.plan import LENGTH, DemoPlan
from keeptune.errors import Interrupted, OutputExists
from keeptune.log import logger
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.replay.generate import sample_pool
from keeptune.runs.run import RUN_FILE, tune
from keeptune.stats import bootstrap_ratio
from keeptune.storage import atomic_folder, read_json, write_json, write_text
from keeptune.system import provenance
from keeptune.train.readings import FILE, read_rows

FRESH_SEED = 1_000
EQUAL_WITHIN = 0.01  # nats per token: task losses closer than this count as equal
SELF = "self"
MODELS = {"plain": "plain/model", "replay_matched": "replay/model-matched", "replay": "replay/model"}


def demo(plan: DemoPlan) -> dict[str, Any]:
    """Run whatever of the demo is not done yet, write report.html and summary.json, and return the summary.

    Raises:
        OutputExists: the folder holds a demo of other settings, or something else.
        SourceError, StorageError, Diverged, Interrupted: as their names say.
    """
    clock = Clock(plan.folder)
    claim(plan)
    logger.info("1/5  The base model")
    base, tokenizer = load_model(plan.model), load_tokenizer(plan.model)
    clock.mark("model")
    logger.info("2/5  Replay: the base writes text of its own")
    select_attention(base, LENGTH)  # as training does, or the base would differ from its own stored states
    sample_pool(base, tokenizer, plan.pool, tokens=plan.pool_tokens, length=LENGTH, seed=plan.seed)
    clock.mark("replay")
    for number, run in ((3, "plain"), (4, "replay")):
        logger.info(f"{number}/5  {plan.model} learns {plan.data}: {'plainly' if run == 'plain' else 'with replay'}")
        train(plan, run)
        clock.mark(f"train {run}")
    logger.info("5/5  What each forgot")
    drifts = readings(plan, base, tokenizer)
    texts = continuations_of(plan, base, tokenizer)
    clock.mark("measure")
    summary = summarise(plan, drifts, clock)
    write_json(plan.folder / "summary.json", summary)
    rows = {run: read_rows(plan.folder / run / FILE) for run in ("plain", "replay")}
    write_text(plan.folder / "report.html", demo_page(page_content(plan, summary, rows, drifts, texts)))
    print_summary(plan, summary)
    return summary


class Clock:
    """Minutes of each stage, kept over interrupted runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "minutes.json"
        self.minutes: dict[str, float] = {}
        if self.path.is_file():
            self.minutes = read_json(self.path, f"delete {self.path}: only the times of what is done are lost")
        self._since = time.monotonic()

    def mark(self, stage: str) -> None:
        """Add the time since the last mark to a stage: a stage that is skipped adds next to nothing."""
        now = time.monotonic()
        self.minutes[stage] = self.minutes.get(stage, 0.0) + (now - self._since) / 60
        self._since = now
        write_json(self.path, self.minutes)


def claim(plan: DemoPlan) -> None:
    """Take the folder, or refuse one that holds something else."""
    settings = json.loads(json.dumps({**vars(plan), "out": None}))
    mark = plan.folder / "demo.json"
    if mark.is_file():
        if read_json(mark, f"delete {plan.folder}, or choose another --out") != settings:
            raise OutputExists(f"{plan.folder} holds a demo of other settings", "choose another --out, or delete it")
        return
    if plan.folder.exists() and any(path.name != "minutes.json" for path in plan.folder.iterdir()):
        raise OutputExists(f"{plan.folder} is not empty and holds no demo", "choose another --out")
    write_json(mark, settings)


class MatchedSnapshot(TrainerCallback):
    """Saves the replay run's model at the step where the plain run ended."""

    def __init__(self, step: int, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.step, self.folder, self.tokenizer = step, folder, tokenizer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save once."""
        if state.global_step == self.step:
            with atomic_folder(self.folder) as temporary:
                model.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)


def train(plan: DemoPlan, run: str) -> None:
    """One run, unless its model stands already; a run cut short goes on from its last checkpoint."""
    folder = plan.folder / run
    snapshot = MatchedSnapshot(plan.steps, plan.folder / MODELS["replay_matched"], load_tokenizer(plan.model))
    callbacks = [snapshot] if run == "replay" else []
    resume = (folder / RUN_FILE).is_file()
    try:
        tune(plan.tune_settings(run), resume=resume, label=f"Tuning, {run}", extra_callbacks=callbacks)
    except Interrupted as error:
        raise Interrupted(error.what, "run the same command again to go on") from error


def readings(plan: DemoPlan, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, Drift]]:
    """Drift of each tuned model on fresh samples of the base and on the old text, kept in files."""
    fresh = plan.folder / "fresh-samples"
    shared: dict[str, Any] = {"docs": plan.documents, "length": LENGTH + 1, "seed": plan.seed + FRESH_SEED}
    texts = {
        SELF: self_rows(base, tokenizer, fresh, **shared),
        plan.text: text_rows(plan.text, base, tokenizer, fresh, windows=1, **shared),
    }
    drifts: dict[str, dict[str, Drift]] = {}
    for model_name, place in MODELS.items():
        files = {
            text: plan.folder / "readings" / f"{model_name}-{'self' if text == SELF else 'text'}.json" for text in texts
        }
        tuned = None if all(file.is_file() for file in files.values()) else load_model(str(plan.folder / place))
        for text, rows in texts.items():
            if tuned is not None and not files[text].is_file():
                drift = measure(base, tuned, rows, label=f"{model_name} on {text}")
                write_json(files[text], drift.as_dict())
            drifts.setdefault(text, {})[model_name] = Drift.from_dict(
                read_json(files[text], f"delete {files[text]}: it is read again")
            )
    return drifts


def continuations_of(plan: DemoPlan, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, str]]:
    """Side-by-side continuations, written once."""
    file = plan.folder / "readings" / "continuations.json"
    if not file.is_file():
        tuned = {name: load_model(str(plan.folder / MODELS[name])) for name in ("plain", "replay")}
        write_json(file, continuations({"base": base, **tuned}, tokenizer))
    texts: list[dict[str, str]] = read_json(file, f"delete {file}: it is written again")
    return texts


def summarise(plan: DemoPlan, drifts: dict[str, dict[str, Drift]], clock: Clock) -> dict[str, Any]:
    """The demo in numbers: `summary.json`."""
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
