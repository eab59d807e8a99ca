"""The capacity probe: can the model learn the task without moving its old predictions?

Replay nearly eliminates forgetting unless the model has no spare capacity; then some must be paid, however λ is
chosen (Marek et al. 2026, arXiv 2605.26097: at the best λ .264 nats for 6 M parameters and .006 for 46 M; for 6 M
trained on 10 tokens a parameter none, on 10 000 .181). Two short runs, alike but for λ, tell which model this is: a
plain one, and one that a stiff KL holds to the base.

The least KL for a gain in task loss is a convex curve from the origin: λ traces it, and its slope is 1/λ. So the line
through the origin and the stiff run, drawn on to the plain run's gain, is a lower bound on what that gain must cost,
as far as the stiff run is on the curve: at too high a rate, or too early, it lies above, and the price is too high.
Hence the price is also read at half of the stiff run, and drawn on, straight in logarithms, to ten times the steps.
The rate sinks to zero in the second half and takes its noise out of the price, which thus falls faster than with
steps alone: of two mistakes, to call a full model undecided and one with room saturated, the rule makes the first.

Shapes: D documents, R resamples.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from keeptune.audit.floor import noise_floor
from keeptune.audit.meter import Drift, measure
from keeptune.audit.verdict import NO_EVIDENCE, require_finite
from keeptune.errors import ConfigError, Interrupted, OutputExists
from keeptune.log import logger
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.runs.run import RUN_FILE, task_rows, tune
from keeptune.runs.settings import TuneSettings
from keeptune.stats import LEVEL, MIN_DOCUMENTS, RESAMPLES, Array, Interval, bootstrap_ratio
from keeptune.storage import read_json, write_json
from keeptune.system import provenance
from keeptune.train.readings import FILE, read_rows

PLAIN, STIFF = "plain", "stiff"
MOST = 0.8
# Nats per token. In the figure of sizes, at the best λ, models with room forget .018 or less, others .045 or more.
NEARLY_NOTHING = 0.02
TIMES = 10
SPARE = "spare capacity"
SATURATED = "saturated"
UNDECIDED = "undecided"
RULE = (
    f"{NO_EVIDENCE}: fewer than {MIN_DOCUMENTS} held-out documents or rows of the base's own text, or the plain run "
    "did not surely learn and move beyond the noise floor. "
    f"{SPARE}: the stiff run surely reaches {MOST:.0%} of the plain run's gain, and the price of all of it is surely "
    f"below {NEARLY_NOTHING:g} nats per token. {SATURATED}: the price is surely above, and would be after {TIMES} "
    f"times the steps at the pace of the stiff run's second half. {UNDECIDED}: otherwise."
)


@dataclass(frozen=True, kw_only=True)
class CapacityPlan:
    """The probe's settings. The docstring under a field is its help text."""

    model: str
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str
    """The new task: a hub data set, a file, folder or glob of jsonl, parquet or text, or verilog, or pydoc."""
    out: str = "capacity"
    """Folder of the probe: pool, both runs, capacity.json."""
    lora: int | None = None
    """Rank of a rank-stabilised LoRA on all linear layers; by default all weights are tuned."""
    steps: int = 200
    """Steps of each run: too few leave it undecided."""
    lambda_: float = 10.0
    """Weight λ of the KL in the stiff run."""
    learning_rate: float | None = None
    """Peak learning rate of both runs; by default 1e-4, or 1e-3 with LoRA."""
    batch_size: int = 8
    """Task rows in a step, and replay rows beside them."""
    max_length: int = 128
    """Longest task row in tokens, and the tokens of a replay row."""
    documents: int = 64
    """Rows of the base's own text, and held-out rows of the task at most, to measure on."""
    seed: int = 42
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if self.steps < 2 or self.documents < MIN_DOCUMENTS:
            raise ConfigError(
                f"{self.steps} steps, read on {self.documents} documents, tell nothing",
                f"give 2 steps or more, and {MIN_DOCUMENTS} documents or more",
            )
        if not self.lambda_ > 0:
            raise ConfigError(f"lambda is {self.lambda_}", "give the stiff run a positive one, such as 10")
        for run in (PLAIN, STIFF):
            self.settings(run)

    @property
    def folder(self) -> Path:
        """The probe's folder."""
        return Path(self.out)

    @property
    def pool_tokens(self) -> int:
        """Tokens that the base writes: each replay row is used once, and the rows to measure on never."""
        return (self.steps * self.batch_size + self.documents) * self.max_length

    def settings(self, run: str) -> TuneSettings:
        """Settings of the plain or the stiff run: the same but for λ, and the stiff one is read along its way."""
        return TuneSettings(
            model=self.model,
            data=self.data,
            out=str(self.folder / run),
            lambda_=self.lambda_ if run == STIFF else 0.0,
            steps=self.steps,
            replay=str(self.folder / "pool"),
            lora=self.lora,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_length=self.max_length,
            replay_length=self.max_length,
            drift_rows=self.documents,
            drift_every=self.steps // 2 if run == STIFF else 0,
            held_out=0.2,
            held_out_rows=self.documents,
            seed=self.seed,
        )


def capacity_probe(plan: CapacityPlan) -> dict[str, Any]:
    """Run whatever of the probe is not done yet, write capacity.json and return what it holds.

    Returns:
        `gain` of each run, CE(base) − CE(tuned) on held-out task documents, and `kl` of each on the base's own text,
        nats per token; `share` of the plain gain that the stiff run reaches; `price`, the least KL for the plain gain
        by the stiff run's line, and `price_share` of the plain run's KL, all with intervals over documents;
        `price_at_half` of the stiff run's steps, None where it had learned nothing by then; `price_to_come`, the
        least after ten times the steps; None all four where the stiff run did not surely learn; `verdict` by `rule`.

    Raises:
        OutputExists: the folder holds a probe of other settings, or something else.
        SourceError, StorageError, Diverged, Interrupted: as their names say.
    """
    _claim(plan)
    logger.info("1/4  The base writes text of its own")
    base, tokenizer = load_model(plan.model), load_tokenizer(plan.model)
    pool = sample_pool(
        base, tokenizer, plan.folder / "pool", tokens=plan.pool_tokens, length=plan.max_length, seed=plan.seed
    )
    for number, run in ((2, PLAIN), (3, STIFF)):
        logger.info(f"{number}/4  {plan.model} learns {plan.data}, λ = {plan.settings(run).lambda_:g}")
        _train(plan, run)
    logger.info("4/4  What each learned and moved")
    rows = {"task": list(task_rows(plan.settings(PLAIN), tokenizer)[1]), "self": pool_rows(pool, plan.documents)}
    floor = noise_floor(base, rows["self"])
    drifts = {run: _readings(plan, base, run, rows) for run in (PLAIN, STIFF)}
    way = read_rows(plan.folder / STIFF / FILE)
    found = {**judge(drifts, floor["measures"]["kl"]["floor"], way), "plan": vars(plan), **provenance(plan.seed)}
    write_json(plan.folder / "capacity.json", found)
    return found


def pool_rows(pool: ReplayPool, count: int) -> list[dict[str, Any]]:
    """The pool's last rows, which a trainer keeps for its meter, as `measure` takes them."""
    rows = []
    for row in range(pool.rows - count, pool.rows):
        tokens = pool.tokens_of(row).tolist()
        rows.append({"input_ids": tokens, "labels": [-100, *tokens[1:]], "document": f"sample {row}"})
    return rows


def judge(drifts: dict[str, dict[str, Drift]], floor: float, way: list[dict[str, Any]]) -> dict[str, Any]:
    """`RULE` in numbers for JSON: both runs' drift on `task` and the base's text (`self`), the stiff run's `way`."""
    gain = {run: gained(of_run["task"]) for run, of_run in drifts.items()}
    tokens_D = drifts[PLAIN]["task"].tokens_D
    kl = {run: of_run["self"].interval("kl") for run, of_run in drifts.items()}
    gains = {run: bootstrap_ratio(gain_D, tokens_D) for run, gain_D in gain.items()}
    found: dict[str, Any] = {
        "gain": {run: interval.as_dict() for run, interval in gains.items()},
        "kl": {run: interval.as_dict() for run, interval in kl.items()},
        "noise_floor": floor,
        "share": None,
        "price": None,
        "price_share": None,
        "price_at_half": None,
        "price_to_come": None,
        "rule": RULE,
    }
    enough = min(gains[PLAIN].documents, kl[PLAIN].documents) >= MIN_DOCUMENTS
    if not enough or (gains[PLAIN].low or 0.0) <= 0 or (kl[PLAIN].low or 0.0) <= floor:
        return {**found, "verdict": NO_EVIDENCE}
    share: dict[str, Any] = bootstrap_ratio(gain[STIFF], gain[PLAIN]).as_dict()
    found["share"] = share
    if share["low"] <= 0:
        return {**found, "verdict": UNDECIDED}
    (to_half, to_come), price_and_share = pace(way), prices(drifts, gain)
    price: dict[str, Any] = price_and_share[0].as_dict()
    found |= {
        "price": price,
        "price_share": price_and_share[1].as_dict(),
        "price_at_half": None if to_half is None else price["value"] * to_half,
        "price_to_come": price["low"] * to_come,
    }
    return {**found, "verdict": verdict(share, price, found["price_to_come"])}


def pace(way: list[dict[str, Any]]) -> tuple[float | None, float]:
    """How many times its last price the stiff run paid at half of its steps, and will pay at `TIMES` of them.

    Where it had learned nothing by half there is no pace: None, and 0, which no verdict builds on.
    """
    base, end = way[0], way[-1]
    half = next(row for row in way if row["step"] == end["step"] // 2)
    learned, learned_by_half = (base["L_ft"] - row["L_ft"] for row in (end, half))
    if min(learned, learned_by_half) <= 0 or end["KL"] <= 0:
        return None, 0.0
    before = half["KL"] * learned / (end["KL"] * learned_by_half)
    power = math.log(TIMES) / math.log(end["step"] / half["step"])
    return before, max(1.0, before) ** -power


def verdict(share: dict[str, Any], price: dict[str, Any], to_come: float) -> str:
    """`RULE` in code, where there is evidence and the stiff run surely learned."""
    if price["low"] > NEARLY_NOTHING:
        return SATURATED if to_come > NEARLY_NOTHING else UNDECIDED
    return SPARE if share["low"] >= MOST and price["high"] < NEARLY_NOTHING else UNDECIDED


def gained(drift: Drift) -> Array:
    """CE(base) − CE(tuned) by document, summed over its tokens, fp64 [D]."""
    return -drift.column("ce_change")


def prices(drifts: dict[str, dict[str, Drift]], gain: dict[str, Array]) -> tuple[Interval, Interval]:
    """KL(stiff) · gain(plain) / gain(stiff), in nats per token, and as a share of KL(plain).

    The stiff run surely learned something. Task documents and the base's own rows are drawn apart, being different
    texts; a resample holds the same of each for both runs.
    """
    own = {run: of_run["self"] for run, of_run in drifts.items()}
    sizes = len(gain[PLAIN]), len(own[PLAIN].documents)
    draws = [np.vstack([np.ones(size), _counts(size, seed)]) for seed, size in enumerate(sizes)]
    learned = {run: draws[0] @ gain_D for run, gain_D in gain.items()}
    moved = {run: draws[1] @ drift.column("kl") / (draws[1] @ drift.tokens_D) for run, drift in own.items()}
    with np.errstate(divide="ignore"):
        price_R = moved[STIFF] * learned[PLAIN] / np.maximum(learned[STIFF], 0.0)
    return _interval(price_R, min(sizes)), _interval(price_R / moved[PLAIN], min(sizes))


def _interval(value_R: Array, documents: int) -> Interval:
    """The first is the value, the others its resamples."""
    low, high = np.quantile(value_R[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Interval(value=float(value_R[0]), low=float(low), high=float(high), documents=documents)


def _counts(documents: int, seed: int) -> Array:
    drawn = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    return drawn.astype(np.float64)


def _claim(plan: CapacityPlan) -> None:
    """Take the folder, or refuse one that holds something else."""
    settings = json.loads(json.dumps({**vars(plan), "out": None}))
    mark = plan.folder / "plan.json"
    if mark.is_file():
        if read_json(mark, f"delete {plan.folder}, or choose another --out") != settings:
            raise OutputExists(f"{plan.folder} holds a probe of other settings", "choose another --out, or delete it")
        return
    if plan.folder.exists() and any(plan.folder.iterdir()):
        raise OutputExists(f"{plan.folder} is not empty and holds no capacity probe", "choose another --out")
    write_json(mark, settings)


def _train(plan: CapacityPlan, run: str) -> None:
    """One run, unless its model stands already; a run cut short goes on from its last checkpoint."""
    resume = (plan.folder / run / RUN_FILE).is_file()
    try:
        tune(plan.settings(run), resume=resume, label=f"Tuning, {run}")
    except Interrupted as error:
        raise Interrupted(error.what, "run the same command again to go on") from error


def _readings(
    plan: CapacityPlan, base: PreTrainedModel, run: str, rows: dict[str, list[dict[str, Any]]]
) -> dict[str, Drift]:
    """The drift of one run's model on each text, kept in files."""
    drifts = {}
    tuned: PreTrainedModel | None = None
    for text, of_text in rows.items():
        file = plan.folder / "readings" / f"{run}-{text}.json"
        if not file.is_file():
            tuned = tuned if tuned is not None else load_model(str(plan.folder / run / "model"))
            drift = measure(base, tuned, of_text, label=f"{run} on {text}")
            require_finite(drift, text)
            write_json(file, drift.as_dict())
        drifts[text] = Drift.from_dict(read_json(file, f"delete {file}: it is read again"))
    return drifts
