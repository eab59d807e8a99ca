"""TRL's SFTTrainer with a replay term: a drop-in for people who have an SFT script."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from keeptune.errors import ConfigError, Diverged
from keeptune.log import logger
from keeptune.models.adapters import adapter_mismatch, adapter_off, causal_model, evaluating
from keeptune.models.modeling import check_head, fingerprint
from keeptune.replay.choose import TeacherChoice, choose_teacher
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayBatch, ReplayPool, read_manifest
from keeptune.replay.teachers import LiveCopy, TeacherOptions, make_teacher, teacher_outputs
from keeptune.storage import free_disk
from keeptune.system import free_bytes
from keeptune.train.budget.steering import SteeringCallback
from keeptune.train.callbacks.drift import MeterCallback
from keeptune.train.callbacks.forecast import ForecastCallback
from keeptune.train.config import CERTIFICATE_ROWS, KeepConfig
from keeptune.train.distributed import check_sharding, main_process_first, on_device, teachers_head
from keeptune.train.drift_text import old_text
from keeptune.train.finch import FinchCallback, FinchSchedule
from keeptune.train.replay_term import replay_rows, replay_sum

_Result = TypeVar("_Result")
_REPLAY_KEY = "keeptune_replay"


class KeepSFTTrainer(SFTTrainer):
    """`trl.SFTTrainer` plus `keep=KeepConfig(...)`: loss = CE(task) + λ · R(replay).

    Everything else is SFTTrainer's: arguments, data sets, PEFT, saving, resuming, launchers. The replay term is
    scaled by the count of replay tokens in the whole accumulation window over all ranks. With λ = 0 it is
    `SFTTrainer`, bit for bit. Readings of the meter go to `<output_dir>/runs.jsonl`.

    Args:
        model: the base model, as for SFTTrainer (name, model, or model with a fresh adapter).
        args: an `SFTConfig`.
        keep: settings of the replay term; the default writes a pool into `<output_dir>/replay` first.
        **kwargs: SFTTrainer's.

    Raises:
        PoolMismatch: the pool was written by another base.
        ConfigError: settings that do not fit the model.
        Diverged: during training, when the loss becomes NaN or infinite.
    """

    def __init__(self, model: Any, args: Any = None, *, keep: KeepConfig | None = None, **kwargs: Any) -> None:
        raw = fingerprint(model) if isinstance(model, nn.Module) else None
        known = isinstance(model, nn.Module) and not hasattr(model, "disable_adapter")
        super().__init__(model=model, args=args, **kwargs)
        self.keep = keep or KeepConfig()
        check_sharding(self)
        inner = self.accelerator.unwrap_model(self.model)
        check_head(inner)
        mark = fingerprint(inner)
        self.base_fingerprint = raw or mark
        pool = None
        if self.keep.replay is not None:
            pool = ReplayPool.open(self.keep.replay)
            pool.check_base(self.base_fingerprint)
        fault = None
        if mark != self.base_fingerprint:
            fault = "putting the adapter on changed the weights under it (PiSSA, OLoRA and their kind)"
        elif not known and pool is None:
            fault = adapter_mismatch(inner)
        if fault and self.keep.drift_text is not None:
            raise ConfigError(
                f"drift on drift_text needs the base, and {fault}",
                "leave drift_text out, or put on an adapter that starts as nothing, such as LoRA's default",
            )
        choice = self._choose_teacher(inner, pool or read_manifest(self._pool_folder), fault)
        self.forecast = ForecastCallback(self)  # what its settings name, and the old text, is read before hours pass
        text = None
        if self.keep.drift_text is not None:
            text = ReplayBatch(tokens_BT1=old_text(self.keep.drift_text, self.processing_class, self.keep))
        self.pool = pool or self._write_pool(inner, choice)
        if self.pool.settings.predictions != choice.predictions:  # another rank saw less room, and wrote it
            choice = self._choose_teacher(inner, self.pool, fault)
        if self.keep.lambda_ and self.is_world_process_zero():
            logger.info(str(choice))
        certificate = self.keep.certificate_rows(self.pool.rows)
        self.train_rows = self.pool.rows - self.keep.drift_rows - certificate
        if self.train_rows < (1 if self.keep.lambda_ else 0) or (self.keep.budget is not None and not certificate):
            raise ConfigError(
                f"the replay pool has {self.pool.rows} rows and {self.keep.drift_rows} of them are kept for the meter",
                "make a larger pool or lower drift_rows",
            )
        self.teacher_head = teachers_head(inner, self)
        self.teacher = make_teacher(choice.kind, inner, self.compute_dtype, self.teacher_head) if choice.kind else None
        if isinstance(self.teacher, LiveCopy):
            self.teacher.copy.to(self.args.device)
        self.meter_batch = (
            self.held_out(inner, 0, self.keep.drift_rows) if text is None else self.with_base_states(inner, text)
        )
        self.steering: SteeringCallback | None = None
        if self.keep.budget is not None:
            self.steering = SteeringCallback(self, self.keep.budget, inner, certificate)
            self.add_callback(self.steering)  # before the meter, whose rows tell λ as moved
        self.meter = MeterCallback(self)
        self.add_callback(self.meter)
        self.add_callback(self.forecast)
        self.window_losses: list[Tensor] = []
        if self.keep.finch is not None:
            self.add_callback(FinchCallback(self))

    def _choose_teacher(self, model: nn.Module, pool: ReplayPool | None, fault: str | None) -> TeacherChoice:
        options = TeacherOptions(
            model=model,
            dtype=self.compute_dtype,
            tokens=pool.tokens if pool is not None else self._tokens_to_write,
            top_k=pool.settings.top_k if pool is not None else self.keep.top_k,
            disk_free=free_disk(Path(self.args.output_dir)),
            memory_free=free_bytes(self.args.device),
            adapter_mismatch=fault,
        )
        return choose_teacher(self.keep.teacher, self.keep.objective, pool, options)

    @property
    def _pool_folder(self) -> Path:
        return Path(self.args.output_dir) / "replay"

    @property
    def _tokens_to_write(self) -> int:
        # A plain run needs the rows that the meter reads, and no others.
        held_out = self.keep.drift_rows * (1 + (CERTIFICATE_ROWS if self.keep.budget is not None else 0))
        return (self.keep.replay_tokens if self.keep.lambda_ else 0) + held_out * self.keep.replay_length

    def _write_pool(self, model: nn.Module, choice: TeacherChoice) -> ReplayPool:
        # Other ranks wait, then find the pool finished.
        with main_process_first(), on_device(model, self.args.device), adapter_off(model):
            return sample_pool(
                model,
                self.processing_class,
                self._pool_folder,
                tokens=self._tokens_to_write,
                length=self.keep.replay_length,
                seed=self.args.seed,
                start=self.keep.document_start,
                dtype=self.compute_dtype,
                predictions=choice.predictions,
                top_k=self.keep.top_k,
            )

    def held_out(self, model: nn.Module, first: int, count: int) -> ReplayBatch:
        """Rows of the pool that are never trained on, with the base's hidden states."""
        first += self.train_rows
        return self.with_base_states(model, self.pool.batch(torch.arange(first, first + count)))

    def with_base_states(self, model: nn.Module, batch: ReplayBatch) -> ReplayBatch:
        """The batch with the base's hidden states, computed now where no pool keeps them: before training only."""
        if "hidden" not in batch.outputs:
            with on_device(model, self.args.device), adapter_off(model), evaluating(model):
                outputs = teacher_outputs(model, batch.inputs_BT, self.compute_dtype, "hidden", 0)
            batch = replace(batch, outputs=outputs)
        return batch

    @property
    def lambda_(self) -> float:
        """λ of the step to come: the setting, or where a budget has steered it."""
        return self.keep.lambda_ if self.steering is None else self.steering.lambda_

    @property
    def replay_rows_at_once(self) -> int:
        """Replay rows beside each task micro-batch."""
        return self.keep.replay_rows or self.args.per_device_train_batch_size

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype in which training multiplies matrices: `args`' or the launcher's mixed precision."""
        launched = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        weight: Tensor = causal_model(self.model).get_output_embeddings().weight
        return launched or weight.dtype

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """SFTTrainer's schedule, or FINCH's."""
        if self.keep.finch is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is not None:
            raise ConfigError("finch is a schedule, and another is given", "leave finch out, or the scheduler")
        warmup = self.args.get_warmup_steps(num_training_steps)
        schedule = FinchSchedule(optimizer or self.optimizer, start=self.keep.finch, warmup_steps=warmup)
        self.lr_scheduler: Any = schedule
        self._created_lr_scheduler = True
        return schedule

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Attach to each micro-batch its replay rows and the replay-token count of the whole window."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.keep.lambda_ == 0.0:
            return batches, items
        rows = self.replay_rows_at_once
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        window_tokens = len(batches) * world * rows * self.pool.settings.length
        for micro, batch in enumerate(batches):
            indices = replay_rows(
                step=self.state.global_step,
                micro=micro,
                micros=self.args.gradient_accumulation_steps,
                rank=rank,
                world=world,
                rows=rows,
                pool_rows=self.train_rows,
                seed=self.args.seed,
            )
            batch[_REPLAY_KEY] = (indices, window_tokens, len(batches))
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """SFTTrainer's loss plus λ times the replay term, where the micro-batch carries replay rows."""
        replay = inputs.pop(_REPLAY_KEY, None)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.keep.finch is not None and self.model.training:
            task = (result[0] if return_outputs else result).detach()
            self.window_losses.append(task / self._divisor(num_items_in_batch))
        if replay is None:
            if self.model.training:
                self._require_finite_loss(result[0] if return_outputs else result)
            return result
        indices, window_tokens, micros = replay
        loss, outputs = result if return_outputs else (result, None)
        batch = self.pool.batch(indices.cpu()).to(loss.device)
        replay_mean = self.replay_sum(model, batch) * (self.accelerator.num_processes / window_tokens)
        self._metrics["train"][f"replay_{self.keep.objective}"].append(replay_mean.item() * micros)
        if self.steering is not None:
            self._metrics["train"]["lambda"].append(self.lambda_)
            self.steering.saw(replay_mean.item() / self.accelerator.num_processes)
        loss = loss + self.lambda_ * self._divisor(num_items_in_batch) * replay_mean
        self._require_finite_loss(loss)
        return (loss, outputs) if return_outputs else loss

    def _divisor(self, num_items_in_batch: Any) -> int:
        # Gemma 3 and other classes that take no count of tokens give a mean, which the Trainer will divide.
        return self.current_gradient_accumulation_steps if num_items_in_batch is None else 1

    def replay_sum(self, model: nn.Module, batch: ReplayBatch) -> Tensor:
        """The replay term's sum over a batch, in nats."""
        return self.inside(model, lambda inner: replay_sum(inner, batch, self.teacher, self.keep.objective))

    def inside(self, model: nn.Module, compute: Callable[[nn.Module], _Result]) -> _Result:
        """`compute(unwrapped model)` as if it were the model's forward: with DDP's and FSDP's work around it."""
        inner = self.accelerator.unwrap_model(model)

        def forward(compute: Callable[[nn.Module], _Result]) -> _Result:
            # The wrapped forward that would have entered autocast is redirected here, so enter it here.
            with self.accelerator.autocast():
                return compute(inner)

        # `compute` travels as an argument because the wrappers cannot move an empty list of arguments to a device.
        result: _Result = _ForwardRedirection()(model, inner, forward, compute)
        return result

    def _require_finite_loss(self, loss: Tensor) -> None:
        self.require_finite("the loss", loss.item(), step=self.state.global_step + 1)

    def require_finite(self, name: str, value: float, *, step: int) -> None:
        """Raise `Diverged` where a number of the run is none."""
        if not math.isfinite(value):
            raise Diverged(
                f"{name} became {value} at step {step}",
                "lower the learning rate (or raise lambda) and resume from the last good checkpoint",
            )
