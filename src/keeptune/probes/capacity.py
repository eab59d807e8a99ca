"""The capacity probe: can the model learn the task without moving its old predictions?

Replay nearly eliminates forgetting unless the model has no spare capacity; then the model must forget something for
every λ (Marek et al. 2026, arXiv 2605.26097: at the best λ .264 nats for 6 M parameters and .006 for 46 M; for 6 M
trained on 10 tokens a parameter none, on 10 000 .181). Two short runs that differ only in λ tell the two cases apart:
a plain run, and a run that a strong KL term constrains to stay near the base.

The least KL for a gain in task loss is a convex curve from the origin. λ traces it, and its slope is 1/λ. So the line
through the origin and the constrained run, extended to the plain run's gain, is a lower bound of what that gain must
cost, if the constrained run lies on the curve. With too high a learning rate, or too early, it lies above the curve,
and the price is too high. Therefore the price is also read at half of the constrained run and extrapolated, linear in
logarithms, to ten times the steps. The learning rate decays in the second half and its noise leaves the price, which
thus falls faster than by steps alone. Of two mistakes, the rule prefers to call a full model undecided rather than to
call a model with room saturated.

Shapes: D documents, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from keeptune.audit.meter import Drift, measure
from keeptune.audit.texts import Row
from keeptune.audit.verdict import NO_EVIDENCE, noise_floor, require_finite
from keeptune.data.rows import ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.runs.run import MODEL, task_rows, tune_or_resume
from keeptune.runs.settings import TuneSettings
from keeptune.stats import MIN_DOCUMENTS, Array, Interval, bootstrap_ratio, format_interval, resampled_counts
from keeptune.storage import write_json
from keeptune.system import provenance
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Steps, Workspace

PLAIN, CONSTRAINED = "plain", "constrained"
# The folder of the constrained run in probes of earlier versions.
_OLD_NAME = "stiff"
MOST = 0.8
# Nats per token. In the figure of sizes, at the best λ, models with room forget .018 or less, others .045 or more.
NEARLY_NOTHING = 0.02
TIMES = 10
SPARE = "spare capacity"
SATURATED = "saturated"
UNDECIDED = "undecided"
RULE = (
    f"{NO_EVIDENCE}: fewer than {MIN_DOCUMENTS} held-out documents or rows of the base's own text, or the intervals of "
    "the plain run's gain and KL do not lie above 0 and the noise floor. "
    f"{SPARE}: the constrained run reaches at least {MOST:.0%} of the plain run's gain, and the price of all of it is "
    f"below {NEARLY_NOTHING:g} nats per token, each with its whole interval. {SATURATED}: the whole interval of the "
    f"price lies above, and so does its low end after {TIMES} times the steps at the pace of the constrained run's "
    f"second half. {UNDECIDED}: otherwise."
)


@dataclass(frozen=True, kw_only=True)
class CapacityPlan:
    """The probe's settings. The docstring under a field is its help text."""

    model: str
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str
    """The new task: a hub data set, a file, folder or glob of rows (jsonl, csv, parquet) or text, verilog, or pydoc."""
    out: str = "capacity"
    """Folder of the probe: pool, both runs, capacity.json."""
    lora: int | None = None
    """Rank of a rank-stabilized LoRA on all linear layers; by default all weights are tuned."""
    steps: int = 200
    """Steps of each run. Raise it if the verdict is undecided."""
    lambda_: float = 10.0
    """Weight λ of the KL term in the constrained run."""
    learning_rate: float | None = None
    """Peak learning rate of both runs; by default 1e-4, or 1e-3 with LoRA."""
    batch_size: int = 8
    """Task rows in a step, and as many replay rows."""
    max_length: int = ROW_LENGTH
    """Longest task row in tokens, and the length of a replay row."""
    documents: int = 64
    """Number of rows of the base's own text, and the most held-out rows of the task, to measure on."""
    skip_bad_rows: bool = False
    """Leave out rows of the data that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""
    seed: int = SEED
    """Seed of everything random."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 2 or self.documents < MIN_DOCUMENTS:
            what = f"{self.steps} steps and {self.documents} documents are too few for a verdict"
            raise ConfigError(what, f"give 2 steps or more, and {MIN_DOCUMENTS} documents or more")
        if not self.lambda_ > 0:
            raise ConfigError(f"lambda is {self.lambda_}", "give the constrained run a positive value, such as 10")
        for run in (PLAIN, CONSTRAINED):
            self.settings(run)

    @property
    def workspace(self) -> Workspace:
        """The probe's folder."""
        return Workspace(folder=Path(self.out), marker="plan.json", kind="capacity probe")

    @property
    def pool_tokens(self) -> int:
        """Tokens that the base writes: each replay row is used once, and the rows to measure on are not trained on."""
        return (self.steps * self.batch_size + self.documents) * self.max_length

    def run_folder(self, run: str) -> Path:
        """The folder of the plain or the constrained run."""
        old = Path(self.out) / _OLD_NAME
        return old if run == CONSTRAINED and old.is_dir() else Path(self.out) / run

    def settings(self, run: str) -> TuneSettings:
        """Settings of the plain or the constrained run. They differ in λ, and in the readings along the way."""
        same = ("model", "data", "steps", "lora", "learning_rate", "batch_size", "max_length", "seed", "skip_bad_rows")
        return TuneSettings(
            **{name: getattr(self, name) for name in same},
            out=str(self.run_folder(run)),
            lambda_=self.lambda_ if run == CONSTRAINED else 0.0,
            replay=str(Path(self.out) / "pool"),
            replay_length=self.max_length,
            drift_rows=self.documents,
            drift_every=self.steps // 2 if run == CONSTRAINED else 0,
            held_out=0.2,
            held_out_rows=self.documents,
        )


def capacity_probe(plan: CapacityPlan) -> dict[str, Any]:
    """Run whatever of the probe is not done yet, write capacity.json and return its content.

    Returns:
        `gain` of each run, CE(base) − CE(tuned) on held-out task documents, and `kl` of each on the base's own text,
        nats per token; `share` of the plain gain that the constrained run reaches; `price`, the least KL for the plain
        gain by the constrained run's line, and `price_share` of the plain run's KL, all with intervals over documents;
        `price_at_half` of the constrained run's steps, None if it had learned nothing by then; `price_to_come`, the
        least after ten times the steps; these four are None if the constrained run's gain is not above 0 with its whole
        interval; `verdict` by `rule`.

    Raises:
        OutputExists: the folder holds a probe with other settings, or something else.
        SourceError, StorageError, Diverged, Interrupted: see `keeptune.errors`.
    """
    folder = plan.workspace.folder
    plan.workspace.check({**vars(plan), "out": None})
    base, tokenizer = load_model(plan.model), load_tokenizer(plan.model)
    task = task_rows(plan.settings(PLAIN), tokenizer)  # data that cannot be read fails before the base writes
    check_sizes(base, tokenizer, task.longest(plan.settings(PLAIN)), "task rows")
    check_length(base, plan.max_length, "replay rows")
    plan.workspace.claim({**vars(plan), "out": None})
    logger.info("1/4  The base writes replay text")
    tokens, length = plan.pool_tokens, plan.max_length
    pool = sample_pool(base, tokenizer, folder / "pool", tokens=tokens, length=length, seed=plan.seed)
    for number, run in ((2, PLAIN), (3, CONSTRAINED)):
        logger.info(f"{number}/4  Tuning {plan.model} on {plan.data}, λ = {plan.settings(run).lambda_:g}")
        tune_or_resume(plan.settings(run), label=f"Tuning, {run}")
    logger.info("4/4  Measuring both runs")
    rows = {"task": list(task.held_out), "self": pool_rows(pool, plan.documents)}
    floor = noise_floor(base, rows["self"])
    drifts = {run: _drifts(plan, base, run, rows) for run in (PLAIN, CONSTRAINED)}
    readings = read_rows(plan.run_folder(CONSTRAINED) / FILE)
    result = {**judge(drifts, floor["measures"]["kl"]["floor"], readings), "plan": vars(plan), **provenance(plan.seed)}
    write_json(folder / "capacity.json", result)
    return result


def pool_rows(pool: ReplayPool, count: int) -> list[Row]:
    """The pool's last rows, which a trainer reserves for drift readings, as `measure` takes them."""
    last = {f"sample {row}": pool.tokens_of(row).tolist() for row in range(pool.rows - count, pool.rows)}
    return [{"input_ids": tokens, "labels": [-100, *tokens[1:]], "document": name} for name, tokens in last.items()]


def judge(drifts: dict[str, dict[str, Drift]], noise_floor: float, readings: list[dict[str, Any]]) -> dict[str, Any]:
    """`RULE` applied to numbers, for JSON.

    Args:
        drifts: for both runs, the drift on the task (`task`) and on the base's text (`self`).
        readings: those of the constrained run, in the order of steps.
    """
    # CE(base) − CE(tuned) by document, summed over its tokens, fp64 [D].
    gain = {run: -of_run["task"].column("ce_change") for run, of_run in drifts.items()}
    tokens_D = drifts[PLAIN]["task"].tokens_D
    gains = {run: bootstrap_ratio(gain_D, tokens_D).as_dict() for run, gain_D in gain.items()}
    kl = {run: of_run["self"].interval("kl").as_dict() for run, of_run in drifts.items()}
    result: dict[str, Any] = {"gain": gains, "kl": kl, "noise_floor": noise_floor, "rule": RULE}
    result |= dict.fromkeys(("share", "price", "price_share", "price_at_half", "price_to_come"))
    enough = min(gains[PLAIN]["documents"], kl[PLAIN]["documents"]) >= MIN_DOCUMENTS
    if not enough or (gains[PLAIN]["low"] or 0.0) <= 0 or (kl[PLAIN]["low"] or 0.0) <= noise_floor:
        return {**result, "verdict": NO_EVIDENCE}
    result["share"] = share = bootstrap_ratio(gain[CONSTRAINED], gain[PLAIN]).as_dict()
    if share["low"] <= 0:
        return {**result, "verdict": UNDECIDED}
    to_half, to_come = pace(readings)
    price, price_share = (interval.as_dict() for interval in prices(drifts, gain))
    result |= {"price": price, "price_share": price_share, "price_to_come": price["low"] * to_come}
    result["price_at_half"] = None if to_half is None else price["value"] * to_half
    return {**result, "verdict": verdict(share, price, result["price_to_come"])}


def pace(readings: list[dict[str, Any]]) -> tuple[float | None, float]:
    """The price of the constrained run at half of its steps, and at `TIMES` its steps, as multiples of its last price.

    If the run had learned nothing by half of its steps there is no pace: None, and 0, which no verdict builds on.
    """
    base, end = readings[0], readings[-1]
    half = next(row for row in readings if row["step"] == end["step"] // 2)
    learned, learned_by_half = (base["L_ft"] - row["L_ft"] for row in (end, half))
    if min(learned, learned_by_half) <= 0 or end["KL"] <= 0:
        return None, 0.0
    before = half["KL"] * learned / (end["KL"] * learned_by_half)
    power = math.log(TIMES) / math.log(end["step"] / half["step"])
    return before, max(1.0, before) ** -power


def verdict(share: dict[str, Any], price: dict[str, Any], to_come: float) -> str:
    """`RULE` in code, where there is evidence and the constrained run's gain is above 0."""
    if price["low"] > NEARLY_NOTHING:
        return SATURATED if to_come > NEARLY_NOTHING else UNDECIDED
    return SPARE if share["low"] >= MOST and price["high"] < NEARLY_NOTHING else UNDECIDED


def prices(drifts: dict[str, dict[str, Drift]], gain: dict[str, Array]) -> tuple[Interval, Interval]:
    """KL(constrained) · gain(plain) / gain(constrained), in nats per token, and as a share of KL(plain).

    Task documents and the base's own rows are different texts and are resampled independently. A resample is shared by
    both runs. The gain of a resample may be 0 and its price infinite.
    """
    own = {run: of_run["self"] for run, of_run in drifts.items()}
    sizes = len(gain[PLAIN]), len(own[PLAIN].documents)
    # The first row is the sample itself.
    counts = [np.vstack([np.ones(size), resampled_counts(size, seed)]) for seed, size in enumerate(sizes)]
    learned = {run: counts[0] @ gain_D for run, gain_D in gain.items()}
    moved = {run: counts[1] @ drift.column("kl") / (counts[1] @ drift.tokens_D) for run, drift in own.items()}
    with np.errstate(divide="ignore"):
        price_R = moved[CONSTRAINED] * learned[PLAIN] / np.maximum(learned[CONSTRAINED], 0.0)
    of_resamples = partial(Interval.of_resamples, documents=min(sizes), method="nearest")
    share_R = price_R / moved[PLAIN]
    return of_resamples(price_R[0], price_R[1:]), of_resamples(share_R[0], share_R[1:])


def _drifts(plan: CapacityPlan, base: PreTrainedModel, run: str, rows: dict[str, list[Row]]) -> dict[str, Drift]:
    """The drift of one run's model on each text, computed once."""
    folder = plan.run_folder(run)
    tuned = cache(lambda: load_model(str(folder / MODEL)))

    def read(text: str) -> dict[str, Any]:
        drift = measure(base, tuned(), rows[text], label=f"{run} on {text}")
        require_finite(drift, text)
        return drift.as_dict()

    steps = Steps(Path(plan.out) / "readings")
    kept = {text: steps.once(f"{folder.name}-{text}", partial(read, text), bare=True) for text in rows}
    return {text: Drift.from_dict(content) for text, content in kept.items()}


def print_capacity(result: dict[str, Any]) -> None:
    """The two runs, what follows from them, and the verdict."""
    plan = result["plan"]
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=f"{plan['model']} on {plan['data']}, {plan['steps']} steps, nats per token, 95 % intervals")
    for column in ("run", "task loss gained", "KL(base‖tuned) on the base's own text"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for run, label in ((PLAIN, "plain, λ = 0"), (CONSTRAINED, f"constrained, λ = {plan['lambda_']:g}")):
        table.add_row(label, format_interval(result["gain"][run]), format_interval(result["kl"][run]))
    table.add_row("noise floor", "", f"{result['noise_floor']:.2g}")
    console.print(table)
    for name, label in (
        ("share", "Share of the plain run's gain that the constrained run reaches"),
        ("price", "Least KL for all of that gain, by the constrained run's line"),
        ("price_share", "As a share of the plain run's KL"),
    ):
        if result[name]:
            console.print(f"{label}: {format_interval(result[name])}.")
    if (half := result["price_at_half"]) is not None:
        later = f"at this pace it is at least {result['price_to_come']:.4f} after {TIMES} times the steps."
        console.print(f"After half of the steps it was {half:.4f}; {later}")
    console.print(describe(result))


def describe(result: dict[str, Any]) -> str:
    """The verdict in a sentence, with what to expect or to do."""
    judged, plan, steps = result["verdict"], result["plan"], result["plan"]["steps"]
    price, half = result["price"], result["price_at_half"]
    if judged == SPARE:
        return "Spare capacity: the model can learn this task and keep its old predictions; expect replay to keep them."
    if judged == SATURATED:
        cost = f"{result['price_to_come']:.2g} nats per token of forgetting for this gain"
        return f"Saturated: expect at least {cost}, even with {TIMES} times {steps} steps. A larger model pays less."
    if judged == UNDECIDED and half is not None and price["low"] > NEARLY_NOTHING:
        fall = f"{half:.2g} → {price['value']:.2g} nats per token over half of the steps"
        return f"Undecided: the price is still falling, {fall}; run again with --steps {2 * steps} and another --out."
    if judged == UNDECIDED:
        return f"Undecided: run longer than {steps} steps, or with another λ than {plan['lambda_']:g}."
    return f"{judged.capitalize()}: read more documents, or run longer than {steps} steps."
