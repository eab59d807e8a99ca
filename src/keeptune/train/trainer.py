"""TRL's SFTTrainer with a replay term: a drop-in for people who have an SFT script."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from keeptune.errors import ConfigError, Diverged
from keeptune.replay.pool import ReplayBatch, ReplayPool
from keeptune.replay.teacher import causal_model, check_head, fingerprint, head_of
from keeptune.replay.write import sample_pool
from keeptune.train.config import KeepConfig
from keeptune.train.meter_callback import MeterCallback
from keeptune.train.processes import check_sharding, main_process_first, on_device, teachers_head
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
        super().__init__(model=model, args=args, **kwargs)
        self.keep = keep or KeepConfig()
        check_sharding(self)
        inner = self.accelerator.unwrap_model(self.model)
        check_head(inner)
        self.base_fingerprint = fingerprint(inner)
        self.pool = self._open_pool(inner)
        self.train_rows = self.pool.rows - self.keep.meter_rows
        if self.train_rows < 1:
            raise ConfigError(
                f"the replay pool has {self.pool.rows} rows and {self.keep.meter_rows} of them are kept for the meter",
                "make a larger pool or lower meter_rows",
            )
        self.teacher_head = teachers_head(head_of(inner), self)
        self.add_callback(MeterCallback(self))

    def _open_pool(self, model: nn.Module) -> ReplayPool:
        if self.keep.replay is not None:
            pool = ReplayPool.open(self.keep.replay)
            pool.check_base(self.base_fingerprint)
            return pool
        folder = Path(self.args.output_dir) / "replay"
        # Other ranks wait, then find the pool finished.
        with main_process_first(), on_device(model, self.args.device), _adapter_off(model):
            return sample_pool(
                model,
                self.processing_class,
                folder,
                tokens=self.keep.replay_tokens + self.keep.meter_rows * self.keep.replay_length,
                length=self.keep.replay_length,
                seed=self.args.seed,
                start=self.keep.document_start,
                dtype=self.compute_dtype,
            )

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype in which training multiplies matrices: `args`' or the launcher's mixed precision."""
        launched = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        weight: Tensor = causal_model(self.model).get_output_embeddings().weight
        return launched or weight.dtype

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Attach to each micro-batch its replay rows and the replay-token count of the whole window."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.keep.lambda_ == 0.0:
            return batches, items
        rows = self.keep.replay_rows or self.args.per_device_train_batch_size
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
        if replay is None:
            if self.model.training:
                self._require_finite(result[0] if return_outputs else result)
            return result
        indices, window_tokens, micros = replay
        loss, outputs = result if return_outputs else (result, None)
        batch = self.pool.batch(indices.cpu()).to(loss.device)
        replay_mean = self.replay_sum(model, batch) * (self.accelerator.num_processes / window_tokens)
        self._metrics["train"][f"replay_{self.keep.objective}"].append(replay_mean.item() * micros)
        loss = loss + self.keep.lambda_ * replay_mean
        self._require_finite(loss)
        return (loss, outputs) if return_outputs else loss

    def replay_sum(self, model: nn.Module, batch: ReplayBatch) -> Tensor:
        """The replay term's sum over a batch, in nats."""
        return self.inside(model, lambda inner: replay_sum(inner, batch, self.keep.objective, self.teacher_head))

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

    def _require_finite(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise Diverged(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}",
                "lower the learning rate (or raise lambda) and resume from the last good checkpoint",
            )


def _adapter_off(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    disable = getattr(model, "disable_adapter", None)
    context: contextlib.AbstractContextManager[None] = disable() if disable else contextlib.nullcontext()
    return context
