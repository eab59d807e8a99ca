"""Self-repair by short tuning, without data: KL(tuned‖θ) on the tuned model's text + λ · KL(base‖θ) on the base's.

Both teachers are the hidden states that the texts were stored with. λ is steered to the budget as in training. The run
starts from the best candidate so far and trains a LoRA on the layers that tuning changed, so that the optimizer's
memory is small; of an adapter beside a quantized base it trains the factors that scale it. With the task's text, its
next-token loss is added. A run that is interrupted goes on from its last checkpoint to the same bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from keeptune.audit.meter import pad_rows
from keeptune.errors import ConfigError, Diverged
from keeptune.log import track
from keeptune.models.lora_targets import all_linear
from keeptune.models.modeling import autocast, training_dtype
from keeptune.repair.change import Change, StoredTensors
from keeptune.repair.methods import Method
from keeptune.repair.settings import RepairSettings
from keeptune.repair.texts import OwnText, TaskText
from keeptune.storage import atomic_file
from keeptune.train.bounds import first_lambda
from keeptune.train.budget.controller import LambdaController
from keeptune.train.loop import task_sum
from keeptune.train.replay_term import replay_rows, replay_sum

TITLE = "self-repair by short tuning"
_CHECKPOINT_EVERY = 20
_WARMUP = 0.05
_MAX_GRAD_NORM = 1.0
_LEFT, _RIGHT = ".left", ".right"


@dataclass(frozen=True, kw_only=True)
class Start:
    """The candidate that self-repair starts from."""

    method: Method
    strength: float

    def weight(self, name: str, base: Tensor, tuned: Tensor) -> Tensor:
        """Its tensor."""
        return self.method.weight(name, base, tuned, self.strength)


class SelfRepair:
    """What training added to the candidate that it started from; strength 1 is the end of training, 0 the base."""

    name, title, ends_at_tuned, linear = "tune", TITLE, False, False

    def __init__(self, start: Start, added: Mapping[str, Tensor]) -> None:
        self.start, self.added = start, added

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """A point between the base and the end of training."""
        end = self.start.weight(name, base, tuned)
        if name in self.added:
            end = end + self.added[name]
        elif name + _LEFT in self.added:
            end = end + self.added[name + _LEFT] @ self.added[name + _RIGHT]
        return torch.lerp(base, end, strength)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What self-repair trains on."""

    base: OwnText
    tuned: OwnText
    task: TaskText | None


def self_repair(
    change: Change, start: Start, texts: Texts, settings: RepairSettings, file: Path, key: str
) -> SelfRepair:
    """Train, or read what an earlier run with the same `key` trained; the model holds any candidate afterwards.

    Raises:
        ConfigError: tuning changed no linear layer.
        Diverged: the loss became NaN or infinite.
    """
    if (known := _finished(file, key)) is not None:
        return SelfRepair(start, known)
    change.place(start.weight)
    if change.beside:
        parameters = dict(change.model.named_parameters())
        chosen: dict[str, Tensor] = {name: parameters[name] for name in change.names}
        before = {name: parameter.detach().clone() for name, parameter in chosen.items()}
        change.model.requires_grad_(False)
        _train(change.model, chosen, texts, settings, file, key)
        added = {name: parameter.detach() - before[name] for name, parameter in chosen.items()}
    else:
        added = _with_lora(change, texts, settings, file, key)
    with atomic_file(file) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in added.items()}, temporary, {"key": key})
    _checkpoint(file).unlink(missing_ok=True)
    return SelfRepair(start, StoredTensors(file))


def _with_lora(change: Change, texts: Texts, settings: RepairSettings, file: Path, key: str) -> dict[str, Tensor]:
    """Factors of what a LoRA adds to each weight, as they multiply: left [out, r] and right [r, in]."""
    causal: Any = change.model
    torch.manual_seed(settings.seed)
    config = all_linear(causal, r=settings.tuning_rank, lora_alpha=16, use_rslora=True, task_type="CAUSAL_LM")
    head, changed = causal.get_output_embeddings(), set(change.names)
    linear = {name: m for name, m in causal.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    config.target_modules = [name for name in linear if f"{name}.weight" in changed]
    if not config.target_modules:
        raise ConfigError("tuning changed no linear layer, so that self-repair has none to train", "leave out tune")
    adapted = get_peft_model(causal, config)
    try:
        trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        _train(adapted, trained, texts, settings, file, key)
        added: dict[str, Tensor] = {}
        for name, layer in adapted.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                left = layer.scaling["default"] * layer.lora_B["default"].weight.detach()
                right = layer.lora_A["default"].weight.detach()
                if isinstance(layer.get_base_layer(), Conv1D):  # stored transposed
                    left, right = right.T, left.T
                added[f"{name}.weight{_LEFT}"], added[f"{name}.weight{_RIGHT}"] = left, right
    finally:
        adapted.unload()
    return added


def _train(
    model: nn.Module, trained: dict[str, Tensor], texts: Texts, settings: RepairSettings, file: Path, key: str
) -> None:
    steps, device, dtype = settings.tuning_steps, next(model.parameters()).device, training_dtype(model)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.learning_rate, weight_decay=0.0)
    controller = LambdaController(settings.budget, start=first_lambda(settings.budget), steps=steps)
    first = _resume(_checkpoint(file), key, trained, optimizer, controller)
    model.eval()  # both teachers predict without dropout
    with track("Self-repair", steps, "steps") as progress:
        progress.skip(first)
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, steps)
            with autocast(device, dtype):
                forgotten, unlearned = _gradients(model, texts, settings, step, controller.lambda_, device)
            if not math.isfinite(forgotten + unlearned):
                raise Diverged(f"self-repair diverged at step {step + 1}", "lower --learning-rate")
            torch.nn.utils.clip_grad_norm_(trained.values(), _MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            controller.update(forgotten)
            progress.advance(
                note=f"KL(base) {forgotten:.4f}, loss of learning {unlearned:.4f}, λ {controller.lambda_:.3g}"
            )
            if (step + 1) % _CHECKPOINT_EVERY == 0 and step + 1 < steps:
                _save(_checkpoint(file), key, step + 1, trained, optimizer, controller)


def _schedule(step: int, steps: int) -> float:
    """A short warm-up, then a cosine to a tenth, so that the last steps still follow λ."""
    warm = min(1.0, (step + 1) / max(_WARMUP * steps, 1))
    return warm * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _gradients(
    model: nn.Module, texts: Texts, settings: RepairSettings, step: int, lambda_: float, device: torch.device
) -> tuple[float, float]:
    """Gradients of one step; returns its KL(base‖θ) and its loss of learning, nats per token."""
    means = []
    for text, weight in ((texts.base, lambda_), (texts.tuned, 1.0)):
        how = {"step": step, "micro": 0, "micros": 1, "rank": 0, "world": 1, "rows": settings.batch_size}
        rows = replay_rows(**how, pool_rows=len(text.training), seed=settings.seed) + text.training.start
        batch = text.pool.batch(rows).to(device)
        mean = replay_sum(model, batch, text.teacher) / batch.targets_BT.numel()
        (weight * mean).backward()
        means.append(mean.item())
    if texts.task is not None and texts.task.training:
        mean = _task_mean(model, texts.task, settings, step, device)
        mean.backward()
        means[1] += mean.item()
    return means[0], means[1]


def _task_mean(model: nn.Module, task: TaskText, settings: RepairSettings, step: int, device: torch.device) -> Tensor:
    how = {"step": step, "micro": 0, "micros": 1, "rank": 0, "world": 1, "rows": settings.batch_size}
    rows = replay_rows(**how, pool_rows=len(task.training), seed=settings.seed).tolist()
    input_BT, label_BT = pad_rows([task.training[row] for row in rows])
    batch = {"input_ids": input_BT.to(device), "labels": label_BT.to(device)}
    return task_sum(model, batch) / int((label_BT[:, 1:] != -100).sum())


def _checkpoint(file: Path) -> Path:
    return file.with_name(f"{file.stem}-checkpoint.safetensors")


def _finished(file: Path, key: str) -> StoredTensors | None:
    try:
        with safe_open(file, framework="pt") as opened:
            if opened.metadata().get("key") != key:
                return None
    except (OSError, SafetensorError):
        return None
    return StoredTensors(file)


def _optimizer_tensors(trained: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in trained.items():
        yield name, parameter.detach()
        for part in ("exp_avg", "exp_avg_sq", "step"):
            yield f"{name}.{part}", optimizer.state[parameter][part]


def _save(
    file: Path,
    key: str,
    step: int,
    trained: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    controller: LambdaController,
) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _optimizer_tensors(trained, optimizer)}
    about = {"key": key, "step": str(step), "controller": json.dumps(controller.export())}
    with atomic_file(file) as temporary:
        save_file(tensors, temporary, about)


@torch.no_grad()
def _resume(
    file: Path, key: str, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer, controller: LambdaController
) -> int:
    """Go on from a checkpoint of the same run, if there is one; returns the steps that are done."""
    try:
        opened = safe_open(file, framework="pt")
        about = opened.metadata()
    except (OSError, SafetensorError):
        return 0
    if about.get("key") != key:
        return 0
    controller.restore(json.loads(about["controller"]))
    for name, parameter in trained.items():
        parameter.copy_(opened.get_tensor(name))
        parts = {part: opened.get_tensor(f"{name}.{part}") for part in ("exp_avg", "exp_avg_sq", "step")}
        optimizer.state[parameter] = {p: t if p == "step" else t.to(parameter.device) for p, t in parts.items()}
    return int(about["step"])
