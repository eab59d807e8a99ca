"""The demo from end to end: one model, tuned twice, and what each run forgot. Finished stages are skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, TrainerCallback
from transformers import PreTrainedTokenizerBase as Tokenizer

from keeptune.audit.answers import answer
from keeptune.audit.meter import Drift, measure
from keeptune.audit.texts import SELF, rows_of
from keeptune.codec import from_json
from keeptune.demo.page import MEASURES, DemoContent, Summary, TextReading, demo_page
from keeptune.demo.plan import LENGTH, REPLAY_ROWS, TASK_ROWS, DemoPlan
from keeptune.log import logger
from keeptune.models.adapters import has_adapter, record_base
from keeptune.models.disk.saving import save_model
from keeptune.models.limits import check_sizes
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import fingerprint, select_attention
from keeptune.replay.generate import sample_pool
from keeptune.runs.run import tune_or_resume
from keeptune.stats import IntervalRow, bootstrap_ratio
from keeptune.storage import atomic_folder, damaged_json, write_json, write_text
from keeptune.system import provenance
from keeptune.train.readings import FILE, measured_loss, read_rows
from keeptune.workspace import Steps

FRESH_SEED = 1_000
EQUAL_WITHIN = 0.01  # nats per token: task losses closer than this count as equal
READINGS = "readings"
MODELS = {"plain": "plain/model", "replay_matched": "replay/model-matched", "replay": "replay/model"}
PROMPTS = (
    "The most important thing to remember about the human heart is that",
    "Photosynthesis is the process by which",
    "Once upon a time, in a small village by the sea, there lived",
    "To make a simple tomato soup, you need",
    "module counter(input clk, input reset, output reg [7:0] count);\n",
)
_NEW_TOKENS = 48


def demo(plan: DemoPlan) -> Summary:
    """Run whatever of the demo is not done yet, write report.html and summary.json, and return the summary.

    Raises:
        OutputExists: the folder holds a demo with other settings, or something else.
        SourceError, StorageError, Diverged, Interrupted: see `keeptune.errors`.
    """
    clock = Clock(plan.folder)
    plan.workspace.claim({**vars(plan), "out": None})
    logger.info("1/5  The base model")
    base, tokenizer = load_model(plan.model), load_tokenizer(plan.model)
    check_sizes(base, tokenizer, LENGTH)
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
    page: DemoContent = {
        "sentence": sentence(plan, summary),
        "summary": summary,
        "trajectories": {run: read_rows(plan.folder / run / FILE) for run in ("plain", "replay")},
        "readings": {text: {name: _reading(of[name]) for name in ("plain", "replay")} for text, of in drifts.items()},
        "continuations": texts,
        "method": method(plan),
    }
    write_text(plan.folder / "report.html", demo_page(page))
    print_summary(plan, summary)
    return summary


class Clock:
    """Minutes of each stage, summed over interrupted runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "minutes.json"
        self.minutes: dict[str, float] = {}
        if self.path.is_file():
            with damaged_json(self.path, f"delete {self.path}: only the recorded times are lost"):
                self.minutes = from_json(dict[str, float], self.path.read_bytes())
        self._since = time.monotonic()

    def mark(self, stage: str) -> None:
        """Add the time since the last mark to a stage. A skipped stage adds almost nothing."""
        now = time.monotonic()
        self.minutes[stage] = self.minutes.get(stage, 0.0) + (now - self._since) / 60
        self._since = now
        write_json(self.path, self.minutes)


class MatchedSnapshot(TrainerCallback):
    """Saves the model of the replay run at the step where the plain run ends."""

    def __init__(self, step: int, folder: Path, tokenizer: Tokenizer) -> None:
        self.step, self.folder, self.tokenizer = step, folder, tokenizer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            with atomic_folder(self.folder) as temporary:
                save_model(model, self.tokenizer, temporary)
                if has_adapter(model):
                    record_base(temporary, self.folder, fingerprint(model))


def train(plan: DemoPlan, run: str) -> None:
    """One run, unless its model exists. An interrupted run continues from its last checkpoint."""
    snapshot = MatchedSnapshot(plan.steps, plan.folder / MODELS["replay_matched"], load_tokenizer(plan.model))
    callbacks = [snapshot] if run == "replay" else []
    tune_or_resume(plan.tune_settings(run), label=f"Tuning, {run}", extra_callbacks=callbacks)


def measure_drift(plan: DemoPlan, base: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, dict[str, Drift]]:
    """Drift of each tuned model on fresh samples of the base and on the old text, each computed once."""
    texts = rows_of(
        {SELF: SELF, plan.text: plan.text},
        base,
        tokenizer,
        plan.folder / "fresh-samples",
        windows=1,
        docs=plan.documents,
        length=LENGTH + 1,
        seed=plan.seed + FRESH_SEED,
        skip_bad_rows=plan.skip_bad_rows,
    )
    steps = Steps(plan.folder / READINGS)

    def read(tuned: Callable[[], PreTrainedModel], name: str, text: str) -> Drift:
        kept, label = f"{name}-{'self' if text == SELF else 'text'}", f"{name} on {text}"
        return Drift.from_dict(
            steps.once(kept, lambda: measure(base, tuned(), texts[text], label=label).as_dict(), bare=True)
        )

    drifts: dict[str, dict[str, Drift]] = {text: {} for text in texts}
    for name, place in MODELS.items():
        tuned = cache(partial(load_model, str(plan.folder / place)))
        for text in texts:
            drifts[text][name] = read(tuned, name, text)
    return drifts


def _reading(drift: Drift) -> TextReading:
    return {
        "documents": len(drift.documents),
        "tokens": int(drift.tokens_D.sum()),
        "measures": {name: drift.interval(name).as_dict() for name in MEASURES},
    }


def write_continuations(plan: DemoPlan, base: PreTrainedModel, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """Greedy continuations by every model, of a few everyday prompts and one of the new task, generated once."""

    def generate() -> list[dict[str, str]]:
        models = {"base": base} | {name: load_model(str(plan.folder / MODELS[name])) for name in ("plain", "replay")}
        prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
        table: list[dict[str, str]] = [{"prompt": prompt} for prompt in PROMPTS]
        for name, model in models.items():
            answers = answer(model, prompts, _NEW_TOKENS, f"Continuations, {name}")
            for row, new_tokens in zip(table, answers, strict=True):
                row[name] = tokenizer.decode(new_tokens, skip_special_tokens=True)
        return table

    return Steps(plan.folder / READINGS).once("continuations", generate, bare=True)


def summarize(plan: DemoPlan, drifts: dict[str, dict[str, Drift]], clock: Clock) -> Summary:
    """The content of `summary.json`."""
    plain, replay = (read_rows(plan.folder / run / FILE) for run in ("plain", "replay"))
    at_end = {"base": plain[0], "plain": plain[-1], "replay": replay[-1]}
    at_end["replay_matched"] = next(row for row in replay if row["step"] == plan.steps)
    task_loss = {name: measured_loss(row) for name, row in at_end.items()}
    kl = {text: {name: drift.column("kl") for name, drift in of.items()} for text, of in drifts.items()}

    def ratios(model: str) -> dict[str, IntervalRow]:
        return {text: bootstrap_ratio(of[model], of["plain"], least=0.0).as_dict() for text, of in kl.items()}

    return {
        "model": plan.model,
        "data": plan.data,
        "drift_ratio_matched_steps": ratios("replay_matched"),
        "drift_ratio_equal_loss": ratios("replay"),
        "equal_loss_reached": task_loss["replay"] <= task_loss["plain"] + EQUAL_WITHIN,
        "task_loss": task_loss,
        "steps": {"plain": plan.steps, "replay": plan.replay_steps},
        "lambda": plan.lambda_,
        "drift": {text: {name: of[name].interval("kl").as_dict() for name in of} for text, of in drifts.items()},
        "minutes": round(sum(clock.minutes.values()), 1),
        "minutes_by_stage": {stage: round(minutes, 2) for stage, minutes in clock.minutes.items()},
        **provenance(plan.seed),
    }


def sentence(plan: DemoPlan, summary: Summary) -> str:
    """The result in one sentence, with what it cost."""
    loss, minutes = summary["task_loss"], summary["minutes_by_stage"]
    ratio = summary["drift_ratio_equal_loss"]["self"]["value"]
    how = "just as well" if summary["equal_loss_reached"] else "almost as well"
    times = (minutes["replay"] + minutes["train replay"]) / max(minutes["train plain"], 0.01)
    return (
        f"With self-generated replay the model learned {plan.data} {how} (held-out loss {loss['replay']:.2f} against "
        f"{loss['plain']:.2f}, base {loss['base']:.2f}) with {1 - ratio:.0%} less drift on the base's own text, in "
        f"{times:.1f} times the time; one run each."
    )


def method(plan: DemoPlan) -> list[str]:
    """What was run, for the methods section of the page."""
    tuned = "all weights" if plan.rank is None else f"a LoRA of rank {plan.rank}"
    return [
        f"The base, {plan.model}, was tuned on {plan.data} twice, {tuned}, with the same data in the same order, "
        f"optimizer (AdamW), peak learning rate, batch of {TASK_ROWS} rows of {LENGTH} tokens and seed. The "
        "learning rate follows a cosine schedule to the end of each run.",
        f"Plain: {plan.steps} steps of cross-entropy. Replay: {plan.replay_steps} steps of cross-entropy plus "
        f"{plan.lambda_:g} times KL(base‖tuned) on {REPLAY_ROWS} rows of {LENGTH} tokens, sampled from the base "
        "without a prompt; no row was used twice.",
        f"Matched steps compares both runs after {plan.steps} steps. Equal task loss compares the ends of both runs; "
        f"the replay run takes 1.5 times as many steps.",
        f"Task loss is measured on {plan.data} documents that no run trained on. Drift is measured on "
        f"{plan.documents} fresh samples of the base and on {plan.text}; neither was trained on, and no setting was "
        "chosen on them.",
    ]


def print_summary(plan: DemoPlan, summary: Summary) -> None:
    """The summary on standard output."""
    table = Table(title=f"{plan.model} on {plan.data}, nats per token")
    for column in ("", "base", "plain", "replay, same steps", "replay, same loss"):
        table.add_column(column, justify="right" if column else "left")
    models = ("plain", "replay_matched", "replay")
    table.add_row("steps", "0", str(plan.steps), str(plan.steps), str(plan.replay_steps))
    loss = summary["task_loss"]
    table.add_row("held-out task loss", f"{loss['base']:.3f}", *[f"{loss[name]:.3f}" for name in models])
    for text, drift in summary["drift"].items():
        cells = [f"{drift['plain']['value']:.4f}"]
        matched, equal = summary["drift_ratio_matched_steps"], summary["drift_ratio_equal_loss"]
        for model, ratio in (("replay_matched", matched), ("replay", equal)):
            cells.append(f"{drift[model]['value']:.4f} ({ratio[text]['value']:.2f}×)")
        table.add_row(f"drift on {'its own text' if text == 'self' else text}", "0", *cells)
    console = Console(highlight=False)
    console.print(table)
    console.print(sentence(plan, summary))
    console.print(f"In brackets: the share of the plain run's drift. Details: {plan.folder / 'report.html'}")
