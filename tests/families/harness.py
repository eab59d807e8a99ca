"""One family walked as a user would: replay written, full tuning, LoRA, audit; what was exact, and what was refused.

Everything runs in fp32 on one thread, but for the audit, which reads in the dtype that the machine trains in.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from keeptune.errors import KeeptuneError
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings
from keeptune.train.readings import read_rows
from tests.families.catalog import Family
from tests.helpers.models import make_tokenizer
from tests.helpers.training import config, keep, trained

Stage = Literal["replay", "full", "lora", "audit"]
STAGES: tuple[Stage, ...] = ("replay", "full", "lora", "audit")
ROW, ROWS = 24, 48
LARGEST_KL = 1e-6
LARGEST_Z = 3.0
_NOISE = 0.03
_SAVED = 1e-5
_MERGED = 1e-3
_TEXTS = [f"Line {number}: what a model writes after {number * 7} words, it forgets." for number in range(8)]
_TEXTS[1] = "Short ones too."


@dataclass
class Walk:
    """What became of one family."""

    name: str
    group: str
    verdict: Literal["exact", "refused", "failed"] = "exact"
    reason: str = ""
    """Why it was refused, or what failed."""
    stages: dict[str, str] = field(default_factory=dict)
    """Each stage: `exact`, `refused`, or what failed."""
    numbers: dict[str, float] = field(default_factory=dict)


class NotExact(AssertionError):
    """A number that ought to be exact is not."""


def walk(family: Family, folder: Path) -> Walk:
    """Walk one family through all stages; `folder` is empty and of this walk alone."""
    result = Walk(family.name, family.group)
    base = make_base(family, folder / "base")
    trl = what_trl_cannot(base, folder / "trl")
    for stage, run in _RUNS.items():
        try:
            run(base, folder, result.numbers)
            result.stages[stage] = "exact"
        except KeeptuneError as error:
            result.stages[stage], result.reason = "refused", result.reason or error.what
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            result.stages[stage] = f"{type(error).__name__}: {said[0][:200]}"
            result.verdict = "failed"
    if result.verdict == "failed":
        result.reason = next(text for text in result.stages.values() if text not in ("exact", "refused"))
    elif "refused" in result.stages.values():
        result.verdict = "refused"
    if trl:
        result.stages["trl"] = trl
    return result


def make_base(family: Family, folder: Path) -> Path:
    """The family's model with random weights, none of them zero or one throughout, and a byte tokenizer."""
    torch.manual_seed(0)
    sizes = family.config()
    kinds = [AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM]
    if family.group in ("multimodal", "encoder-decoder"):
        kinds.reverse()  # of a wrapper the whole, as its checkpoints are
    model = next(kind for kind in kinds if type(sizes) in kind._model_mapping).from_config(sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * _NOISE)
    model.save_pretrained(folder)
    make_tokenizer(chat_template=None).save_pretrained(folder)
    return folder


def what_trl_cannot(base: Path, folder: Path) -> str:
    """Why `SFTTrainer` by itself cannot train the model that it loads from this folder; empty if it can."""
    try:
        trained(SFTTrainer(model=str(base), args=_args(folder), train_dataset=_rows(), processing_class=_tokens()))
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return ""


def _replay(base: Path, folder: Path, numbers: dict[str, float]) -> None:
    model = load_model(str(base))
    pool = sample_pool(
        model, load_tokenizer(str(base)), folder / "pool", tokens=ROWS * ROW, length=ROW, dtype=torch.float32
    )
    numbers["z"] = sampling_z(model, torch.cat([pool.batch(torch.arange(pool.rows)).tokens_BT1]))
    if not abs(numbers["z"]) < LARGEST_Z:
        raise NotExact(f"sampled from another distribution: z = {numbers['z']:.1f}")


@torch.no_grad()
def sampling_z(model: PreTrainedModel, tokens_BT1: Tensor) -> float:
    """How many standard deviations the sample's log-probability lies off its expectation under the full forward."""
    log_probs_BTV = model(input_ids=tokens_BT1[:, :-1]).logits.double().log_softmax(dim=-1)
    sampled_BT = log_probs_BTV.gather(-1, tokens_BT1[:, 1:, None]).squeeze(-1)
    probs_BTV = log_probs_BTV.exp()
    mean_BT = (probs_BTV * log_probs_BTV).sum(dim=-1)
    variance_BT = (probs_BTV * log_probs_BTV**2).sum(dim=-1) - mean_BT**2
    return float((sampled_BT - mean_BT).sum() / variance_BT.sum().sqrt())


def _full(base: Path, folder: Path, numbers: dict[str, float]) -> None:
    pool = ReplayPool.open(folder / "pool")
    given: dict[str, Any] = {"train_dataset": _rows(), "processing_class": _tokens()}
    parent = trained(SFTTrainer(model=load_model(str(base)), args=_args(folder / "parent"), **given))
    plain = KeepSFTTrainer(
        model=load_model(str(base)), args=_args(folder / "zero"), keep=keep(pool, lambda_=0.0, drift_every=1), **given
    )
    zero = trained(plain)
    different = [name for name in parent if not torch.equal(parent[name], zero[name])]
    if different:
        raise NotExact(f"λ = 0 differs from SFTTrainer in {len(different)} tensors, such as {different[0]}")
    trainer = KeepSFTTrainer(
        model=load_model(str(base)), args=_args(folder / "full"), keep=keep(pool, drift_every=1), **given
    )
    trainer.train()
    numbers["kl_0"] = _first_kl(folder / "full")
    if trainer.state.log_history[0]["replay_kl"] > LARGEST_KL:
        raise NotExact(f"the replay term of the first step is {trainer.state.log_history[0]['replay_kl']:.2e}")
    trainer.save_model(str(folder / "tuned"))
    _equal(logits(trainer.model), logits(load_model(str(folder / "tuned"))), _SAVED)


class _Last(TrainerCallback):
    """Keeps the logits of the model as it is at the end of training."""

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.logits = logits(model)


def _lora(base: Path, folder: Path, numbers: dict[str, float]) -> None:
    data, last = folder / "task.jsonl", _Last()
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in _TEXTS))
    settings = TuneSettings(
        model=str(base), data=str(data), out=str(folder / "lora"), replay=str(folder / "pool"), lora=4, steps=2,
        batch_size=2, max_length=ROW, drift_rows=4, drift_every=1, held_out_rows=2, checkpoint_every=0,
        sft={"bf16": False},
    )  # fmt: skip
    saved = tune(settings, extra_callbacks=[last])
    numbers["lora_kl_0"] = _first_kl(folder / "lora")
    _equal(last.logits, logits(load_model(str(saved))), _MERGED)


def _audit(base: Path, folder: Path, numbers: dict[str, float]) -> None:
    report = audit(
        base, folder / "tuned", {"task": _TEXTS[:3]}, out=folder / "audit", docs=3, max_length=ROW, windows=1
    ).content
    kl = report["texts"]["task"]["measures"]["kl"]["value"]
    numbers["audit_kl"] = kl
    if not (math.isfinite(kl) and kl > 0):
        raise NotExact(f"the audit reads a KL of {kl} on a tuned model")
    if reason := report["where"]["layers"].get("unavailable"):
        raise NotExact(f"no view of the layers: {reason}")


_RUNS: dict[Stage, Callable[[Path, Path, dict[str, float]], None]] = {
    "replay": _replay,
    "full": _full,
    "lora": _lora,
    "audit": _audit,
}


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


def _first_kl(folder: Path) -> float:
    kl = float(read_rows(folder / "runs.jsonl")[0]["KL"])
    if not abs(kl) < LARGEST_KL:
        raise NotExact(f"KL of step 0 is {kl:.2e}")
    return kl


def _args(folder: Path) -> Any:
    return config(folder, max_steps=2, per_device_train_batch_size=2, report_to="none")


def _rows() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 240, (16,), generator=generator).tolist() for _ in range(8)]
    return Dataset.from_dict({"input_ids": rows, "labels": [[-100, -100, *row[2:]] for row in rows]})


def _tokens() -> Any:
    return make_tokenizer(chat_template=None)
