"""What must hold for a quantized base, measured on the tiny model: for the tests, and for the table of all methods."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import SFTTrainer

from keeptune.audit.meter import measure
from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint, hidden_states
from keeptune.models.quantized import quantized_layers, settle
from keeptune.replay.generate import sample_pool
from keeptune.train.config import KeepConfig
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, largest_gap, task_rows, trained

Load = Callable[[], Any]
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="make quantization runs it: PEFT imports bitsandbytes wherever it is installed, which takes seconds",
)
INPUT_BT = torch.arange(20)[None]


def fingerprints(load: Load) -> set[str]:
    """The fingerprints of a fresh model before and after a forward pass and of a second load: one, if all is well."""
    model, again = load(), load()
    settle(again)
    marks = {fingerprint(again)}
    if not hasattr(causal_model(model), "hf_quantizer") or "compressed" not in str(model.config.quantization_config):
        marks |= {fingerprint(model)}
        with torch.no_grad():
            model.eval()(INPUT_BT)
        marks |= {fingerprint(model)}
    settle(model)
    with torch.no_grad():
        model.eval()(INPUT_BT)
    return marks | {fingerprint(model)}


def lora(model: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules=quantized_layers(model) or "all-linear", task_type="CAUSAL_LM")


def tuned(load: Load, folder: Path, teacher: str, **settings: Any) -> tuple[KeepSFTTrainer, float]:
    """A trainer after two steps, and the KL of its first reading."""
    torch.manual_seed(0)
    model = load()
    shape = {"drift_rows": 4, "drift_every": 1, "replay_rows": 2, "replay_tokens": 128, "replay_length": 16}
    keep = KeepConfig(**{**shape, "teacher": teacher, **settings})
    trainer = KeepSFTTrainer(
        model=model, args=config(folder, max_steps=2), keep=keep, train_dataset=task_rows(8),
        processing_class=make_tokenizer(), peft_config=lora(model),
    )  # fmt: skip
    trainer.train()
    return trainer, read_rows(folder / "runs.jsonl")[0]["KL"]


def parent(load: Load, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that SFTTrainer reaches alone."""
    torch.manual_seed(0)
    model = load()
    trainer = SFTTrainer(
        model=model, args=config(folder, max_steps=2), train_dataset=task_rows(8), processing_class=make_tokenizer(),
        peft_config=lora(model),
    )  # fmt: skip
    return trainable(trained(trainer))


def trainable(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in weights.items() if "lora_" in name}


def measured(load: Load, folder: Path) -> dict[str, Any]:
    """All that the table says of a method whose adapters can be trained."""
    result: dict[str, Any] = {"fingerprints": len(fingerprints(load))}
    for teacher in ("hidden", "adapter", "live"):
        try:
            trainer, result[f"KL of step 0, {teacher}"] = tuned(load, folder / teacher, teacher)
        except ConfigError as error:
            result[f"KL of step 0, {teacher}"] = f"refused: {error.what}"
    plain, _ = tuned(load, folder / "plain", "adapter", lambda_=0.0)
    result["λ = 0 against SFTTrainer"] = largest_gap(
        trainable(plain.model.state_dict()), parent(load, folder / "parent")
    )
    result["saved against reloaded"] = reloaded_gap(trainer, folder / "saved")
    return result


def reloaded_gap(trainer: Any, folder: Path) -> float:
    """The largest difference in final hidden states between the model in training and its adapter, loaded again."""
    trainer.save_model(str(folder))
    with torch.no_grad():
        now = hidden_states(trainer.model.eval(), INPUT_BT)
        return float((hidden_states(load_model(str(folder)), INPUT_BT) - now).abs().max())


def pool_of(load: Load, folder: Path, **settings: Any) -> Any:
    return sample_pool(load(), make_tokenizer(), folder, tokens=64, length=16, dtype=torch.float32, **settings)


def measured_without_training(load: Load, folder: Path) -> dict[str, Any]:
    """What the table says of a method that replay and audit use: fingerprints, a pool, drift on either side."""
    plain, texts = make_model(tie=False, width=64), ["A text of a few words. " * 4, "Another one. " * 6]
    result: dict[str, Any] = {"fingerprints": len(fingerprints(load))}
    pool_of(load, folder / "pool of tokens", predictions="none")
    for name, base, tuned_model in (("base", load(), plain), ("tuned", plain, load())):
        if tuned_model.config.vocab_size == base.config.vocab_size:
            drift = measure(base, tuned_model, texts, tokenizer=make_tokenizer(), dtype=torch.float32)
            result[f"audit, quantized {name}"] = drift.interval("kl").value
    return result
