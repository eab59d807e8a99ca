"""One family walked as a user would: replay written, full tuning, LoRA, audit; what was exact, and what was refused.

Everything runs in fp32 on one thread, but for the audit, which reads in the dtype that the machine trains in.
"""

from __future__ import annotations

import json
import math
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    TrainerCallback,
)
from trl import SFTTrainer

from keeptune import KeepSFTTrainer, audit
from keeptune.audit.where.view import WhereDetails
from keeptune.errors import KeeptuneError
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.report.codec import from_json
from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings
from keeptune.train.readings import read_rows
from tests.families.catalog import Family
from tests.helpers.models import make_tokenizer
from tests.helpers.training import config, keep, trained

Stage = Literal["replay", "full", "lora", "audit"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ROW, ROWS = 24, 48
LARGEST_KL = 1e-6
LARGEST_Z = 3.0
_NOISE = 0.03
_SAVED = 1e-5
_MERGED = 1e-3
# One is short, so that prompts are padded.
_TEXTS = [f"Line {number}: what a model writes after {number * 7} words, it forgets." for number in range(7)]
_TEXTS.insert(1, "A short one.")


@dataclass
class Walk:
    """What became of one family."""

    name: str
    group: str
    verdict: Literal["exact", "refused", "failed"] = "exact"
    reason: str = ""
    """Why it was refused, or what failed."""
    trl: str = ""
    """Why TRL's own `SFTTrainer` cannot train it; empty where it can."""
    stages: dict[str, str] = field(default_factory=dict)
    """Each stage: `exact`, `refused`, or what failed."""
    numbers: dict[str, float] = field(default_factory=dict)


class NotExact(AssertionError):
    """A number that ought to be exact is not."""


def walk(family: Family, folder: Path) -> Walk:
    """Walk one family through all stages; `folder` is empty and of this walk alone."""
    result = Walk(family.name, family.group)
    walker = _Walker(folder, family, result.numbers)
    result.trl = walker.try_trl()
    for stage in STAGES:
        try:
            getattr(walker, stage)()
            result.stages[stage] = "exact"
        except KeeptuneError as error:
            result.stages[stage] = "refused"
            result.reason = result.reason or error.what.replace(str(walker.base), "the base")
        except Exception as error:
            traceback.print_exc()
            result.stages[stage] = _words(error)
            result.verdict = "failed"
    if result.verdict == "failed":
        result.reason = next(text for text in result.stages.values() if text not in ("exact", "refused"))
    elif "refused" in result.stages.values():
        result.verdict = "refused"
    return result


def make_base(family: Family, folder: Path) -> Path:
    """The family's model with random weights, none of them zero or one throughout, and a byte tokenizer."""
    torch.manual_seed(0)
    sizes = family.config()
    kinds: list[Any] = [AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM]
    if family.group in ("multimodal", "encoder-decoder", "not causal"):
        kinds.reverse()  # the whole, as its checkpoints are
    model = next(kind for kind in kinds if type(sizes) in kind._model_mapping).from_config(sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * _NOISE)
    model.save_pretrained(folder)
    make_tokenizer(chat_template=None).save_pretrained(folder)
    return folder


class _Walker:
    """The stages, each of which raises if something is not exact."""

    def __init__(self, folder: Path, family: Family, numbers: dict[str, float]) -> None:
        self.folder, self.family, self.numbers = folder, family, numbers
        self.base = make_base(family, folder / "base")
        self.trl_fails = False
        self.sft: dict[str, Any] = {}
        """What TRL has to be told to train this model."""

    def try_trl(self) -> str:
        """Why `SFTTrainer` by itself cannot train the model of the base's folder; empty if it can."""
        reason = ""
        for self.sft in ({}, {"router_aux_loss_coef": 0.0}):
            try:
                self.parent = trained(SFTTrainer(model=str(self.base), args=self._args("trl"), **_data()))
                return ""
            except Exception as error:
                reason = reason or _words(error)
        self.trl_fails = True
        return reason

    def replay(self) -> None:
        """The base writes a pool, in its own distribution."""
        model, tokenizer = load_model(str(self.base)), load_tokenizer(str(self.base))
        pool = sample_pool(model, tokenizer, self.folder / "pool", tokens=ROWS * ROW, length=ROW, dtype=torch.float32)
        z = self.numbers["z"] = sampling_z(model, pool.batch(torch.arange(pool.rows)).tokens_BW)
        if not abs(z) < LARGEST_Z:
            raise NotExact(f"sampled from another distribution: z = {z:.1f}")

    def full(self) -> None:
        """Full tuning from Python: λ = 0 is SFTTrainer, the KL starts at 0, and what is saved is what was trained."""
        if self.trl_fails:
            tune(self._settings("tuned", lora=None))
            raise NotExact("SFTTrainer fails on this model, and tune does not")
        pool = ReplayPool.open(self.folder / "pool")
        zero = trained(self._keeping("zero", keep(pool, lambda_=0.0, drift_every=1)))
        different = [name for name in zero if not torch.equal(self.parent[name], zero[name])]
        if different:
            raise NotExact(f"λ = 0 differs from SFTTrainer in {len(different)} tensors, such as {different[0]}")
        trainer = self._keeping("full", keep(pool, drift_every=1))
        trainer.train()
        self.numbers["kl_0"] = self._first_kl("full")
        if trainer.state.log_history[0]["replay_kl"] > LARGEST_KL:
            raise NotExact(f"the replay term of the first step is {trainer.state.log_history[0]['replay_kl']:.2e}")
        trainer.save_model(str(self.folder / "tuned"))
        _equal(logits(trainer.model), logits(load_model(str(self.folder / "tuned"))), _SAVED)

    def lora(self) -> None:
        """LoRA by `keeptune tune`: the KL starts at 0, and the adapter that is saved is the one that was trained."""
        last = _Last()
        saved = tune(self._settings("lora", lora=4), extra_callbacks=[last])
        self.numbers["lora_kl_0"] = self._first_kl("lora")
        _equal(last.logits, logits(load_model(str(saved))), _MERGED)

    def audit(self) -> None:
        """An audit of the tuned model against its base, with the view of its layers."""
        tuned = self.base if self.trl_fails else self.folder / "tuned"
        out = self.folder / "audit"
        report = audit(self.base, tuned, {"task": _TEXTS[:3]}, out=out, docs=3, max_length=ROW, windows=1)
        kl = self.numbers["audit_kl"] = report.select(subject="task", measure="kl")[0].value
        if not (math.isfinite(kl) and (abs(kl) < LARGEST_KL if self.trl_fails else kl > 0)):
            raise NotExact(f"the audit reads a KL of {kl} {'of the base itself' if self.trl_fails else ''}")
        where = report.section("where")
        assert where is not None
        reason = from_json(WhereDetails, where.details).layers.unavailable
        if bool(reason) is not self.family.stacked:
            raise NotExact(f"the view of the layers: {reason or 'there is one'}")

    def _keeping(self, name: str, settings: Any) -> KeepSFTTrainer:
        return KeepSFTTrainer(model=load_model(str(self.base)), args=self._args(name), keep=settings, **_data())

    def _args(self, name: str) -> Any:
        return config(self.folder / name, max_steps=2, per_device_train_batch_size=2, report_to="none", **self.sft)

    def _settings(self, name: str, lora: int | None) -> TuneSettings:
        data = self.folder / "task.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in _TEXTS))
        return TuneSettings(
            model=str(self.base), data=str(data), out=str(self.folder / name), replay=str(self.folder / "pool"),
            lora=lora, steps=2, batch_size=2, max_length=ROW, drift_rows=4, drift_every=1, held_out_rows=2,
            checkpoint_every=0, sft={"bf16": False, **self.sft},
        )  # fmt: skip

    def _first_kl(self, name: str) -> float:
        kl = float(read_rows(self.folder / name / "runs.jsonl")[0]["KL"])
        if not abs(kl) < LARGEST_KL:
            raise NotExact(f"KL of step 0 is {kl:.2e}")
        return kl


class _Last(TrainerCallback):
    """Keeps the logits of the model as it is at the end of training."""

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.logits = logits(model)


@torch.no_grad()
def sampling_z(model: PreTrainedModel, tokens_BW: Tensor) -> float:
    """How many standard deviations the sample's log-probability lies off its expectation under the full forward."""
    log_probs_BTV = model(input_ids=tokens_BW[:, :-1]).logits.double().log_softmax(dim=-1)
    sampled_BT = log_probs_BTV.gather(-1, tokens_BW[:, 1:, None]).squeeze(-1)
    probs_BTV = log_probs_BTV.exp()
    mean_BT = (probs_BTV * log_probs_BTV).sum(dim=-1)
    variance_BT = (probs_BTV * log_probs_BTV**2).sum(dim=-1) - mean_BT**2
    return float((sampled_BT - mean_BT).sum() / variance_BT.sum().sqrt())


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Logits of a fixed row, in evaluation mode and with the whole model; fp32 [1, T, V]."""
    was_training = model.training
    model.eval()
    result: Tensor = model(input_ids=torch.arange(3, 3 + ROW)[None]).logits
    model.train(was_training)
    return result


def _equal(live: Tensor, reloaded: Tensor, tolerance: float) -> None:
    gap = float((live - reloaded).abs().max() / live.abs().max())
    if not gap <= tolerance:
        raise NotExact(f"the saved model differs from the trained one by {gap:.1e} of its largest logit")


def _data() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 240, (16,), generator=generator).tolist() for _ in range(8)]
    dataset = Dataset.from_dict({"input_ids": rows, "labels": [[-100, -100, *row[2:]] for row in rows]})
    return {"train_dataset": dataset, "processing_class": make_tokenizer(chat_template=None)}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
