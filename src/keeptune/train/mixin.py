"""Keeping as a mixin: put it before a trainer's class, and the trainer adds λ · R(replay) to its own loss.

    class KeepKTOTrainer(KeepMixin, KTOTrainer): ...

The trainer must derive from transformers' `Trainer`, call `compute_loss` once for every micro-batch, and train a causal
language model. Nothing else is asked of it: batches, losses and schedules stay its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError, UnsupportedModel
from keeptune.log import logger
from keeptune.models.loading import is_adapter, load_model, load_tokenizer
from keeptune.models.modeling import head_of
from keeptune.models.quantized import BASE_QUANTIZATION, loading_quantization
from keeptune.models.sharded import is_sharded
from keeptune.storage import write_json
from keeptune.train.base import given_model, require_language_model
from keeptune.train.budget.callback import BudgetCallback
from keeptune.train.callbacks.drift import DriftCallback
from keeptune.train.callbacks.finite import FiniteCallback
from keeptune.train.callbacks.forecast import ForecastCallback
from keeptune.train.callbacks.report import ReportReadings
from keeptune.train.config import KeepConfig
from keeptune.train.context import Host, KeepContext, Window
from keeptune.train.host.arguments import check_arguments, check_task_rows
from keeptune.train.host.compat import _ForwardRedirection, require_current_parents, total_train_tokens, trl_parents
from keeptune.train.host.distributed import check_launch
from keeptune.train.host.evaluation import held_out_loss
from keeptune.train.prepare import prepare
from keeptune.train.replay_term import replay_rows, replay_sum

_Result = TypeVar("_Result")


class KeepMixin:
    """Adds `keep=KeepConfig(...)` to a trainer: loss = the trainer's own + λ · R(replay).

    The replay term is scaled by the count of replay tokens in the whole accumulation window over all processes, and
    replay rows are predicted without dropout, NEFTune or router jitter. With λ = 0 the trainer is its parent, bit for
    bit. Readings of drift go to `<output_dir>/runs.jsonl`.

    Args:
        *args, **kwargs: the parent's; the first is the base: a name (also of a saved adapter, which is merged), a
            model, or a PEFT model, whose base is the model without its adapter.
        keep: settings of the replay term; by default the base writes a replay pool into `<output_dir>` first.

    Raises:
        PoolMismatch: the pool was written by another base.
        ConfigError: settings that do not fit the model or the trainer.
        Diverged: during training with λ > 0, when the loss becomes NaN or infinite.
    """

    _trl_parents: dict[str, type[Any]] = {}  # noqa: RUF012
    context: KeepContext | None = None
    """The prepared run; None where λ is 0 and no reading of drift was asked for."""

    def __init__(self, *args: Any, keep: KeepConfig | None = None, **kwargs: Any) -> None:
        require_current_parents(type(self), self._trl_parents)
        self.keep = keep or KeepConfig()
        self._windows: list[Window] = []
        if not self.keep.is_active:
            super().__init__(*args, **kwargs)
            return
        args, kwargs = _adapter_merged(args, kwargs)
        adapts = kwargs.get("peft_config") is not None
        given = given_model(args[0] if args else kwargs.get("model"), adapts=adapts)
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if getattr(trainer, "model_init", None) is not None:
            raise ConfigError(
                "model_init makes a new model at each train(), and keeptune holds on to one base", "pass model instead"
            )
        check_launch(trainer)
        check_arguments(trainer)
        model = trainer.accelerator.unwrap_model(trainer.model)
        try:
            require_language_model(model)
            check_task_rows(trainer)
            self.context = prepare(model, host_of(trainer), self.keep, given)
        except UnsupportedModel as error:
            if self.keep.lambda_ > 0:
                raise
            # What the parent trains is trained; only the readings are lost.
            logger.warning(f"no drift is read in this run: {error.what}")
            return
        for callback in _callbacks(self.context):
            trainer.add_callback(callback)
        if set(trainer.args.report_to) - {"none"}:
            self.context.listeners.append(ReportReadings(trainer))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the parent's whole signature, with `keep`, to IDEs and `help`."""
        super().__init_subclass__(**kwargs)
        cls._trl_parents = trl_parents(cls)
        parent = next(base for base in cls.__mro__ if not issubclass(base, KeepMixin))
        if "__init__" not in cls.__dict__ and parent is not object:
            cls.__signature__ = _with_keep(inspect.signature(parent))  # type: ignore[attr-defined]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The parent's micro-batches of the next optimizer step, whose replay window opens here."""
        given = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        context = self.context
        micros = len(given[0])
        if context is not None and micros:
            step: int = self.state.global_step  # type: ignore[attr-defined]
            context.check_losses(step=step)  # of a host that calls nothing before its optimizer
            context.window = Window(
                step=step,
                micros=micros,
                tokens=micros * context.host.world * context.replay_rows * context.replay_length,
                lambda_=context.lambda_,
            )
            if self.keep.lambda_ > 0:
                self._windows.append(context.window)
        return given

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The parent's loss, plus λ times the replay term while training."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        context = self.context
        if context is None or not model.training:
            return result
        loss, outputs = result if return_outputs else (result, None)
        divisor = self._divisor(num_items_in_batch)
        if context.window is not None:
            context.window.task.append(loss.detach() / divisor)
        if self.keep.lambda_ > 0:
            loss = loss + context.lambda_ * divisor * self._replay_mean(model, context)
        if context.require_finite and self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            # DeepSpeed's optimizer steps in the backward pass, before a callback could look.
            context.check_finite("the loss", loss.item(), step=self.state.global_step + 1)  # type: ignore[attr-defined]
        elif context.require_finite:
            context.unchecked.append(loss.detach())
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The parent's saving, and how the base of a saved adapter was quantized, which PEFT does not save."""
        super()._save(output_dir, state_dict=state_dict)  # type: ignore[misc]
        if (how := loading_quantization(self.model)) is not None:  # type: ignore[attr-defined]
            folder = Path(output_dir or self.args.output_dir)  # type: ignore[attr-defined]
            write_json(folder / BASE_QUANTIZATION, how)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The parent's log with the replay term, and λ where a budget moves it, since the last training log."""
        if self._windows and self.model.training:  # type: ignore[attr-defined]
            windows, self._windows = self._windows, []
            logs[f"replay_{self.keep.objective}"] = sum(window.mean_replay() for window in windows) / len(windows)
            if self.keep.budget is not None:
                logs["lambda"] = sum(window.lambda_ for window in windows) / len(windows)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _replay_mean(self, model: nn.Module, context: KeepContext) -> Tensor:
        """This micro-batch's part of the step's mean replay term, times the number of processes, as DDP averages."""
        window, pool, host = context.window, context.pool, context.host
        if window is None or pool is None or window.micro >= window.micros:
            raise ConfigError(
                f"{type(self).__name__} computes losses outside the micro-batches of get_batch_samples",
                "use a trainer that calls compute_loss once for every micro-batch",
            )
        indices = replay_rows(
            step=window.step,
            micro=window.micro,
            micros=host.accumulate,
            rank=host.rank,
            world=host.world,
            rows=context.replay_rows,
            pool_rows=context.train_rows,
            seed=host.seed,
        )
        batch = pool.batch(indices).to(host.device)
        total = call_inside(self, model, lambda inner: replay_sum(inner, batch, context.teacher, self.keep.objective))
        mean: Tensor = total * (host.world / window.tokens)
        window.replay.append(mean.detach())
        return mean

    def _divisor(self, num_items_in_batch: Any) -> int:
        """What the parent will divide the loss by: the micro-batches, unless its loss is scaled already."""
        trainer: Any = self
        scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if scaled is None:
            counted = trainer.model_accepts_loss_kwargs and num_items_in_batch is not None
            scaled = counted or trainer.compute_loss_func is not None
        return 1 if scaled else trainer.current_gradient_accumulation_steps


def _adapter_merged(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The trainer's arguments, with a saved adapter's name replaced by the model that it makes of its base."""
    model = args[0] if args else kwargs.get("model")
    if not isinstance(model, str) or not is_adapter(model):
        return args, kwargs
    logger.info(f"{model} is an adapter: merged into its base, it is the base of this run")
    if len(args) < 2 and kwargs.get("processing_class") is None:
        kwargs = {**kwargs, "processing_class": load_tokenizer(model)}
    merged = load_model(model)
    return ((merged, *args[1:]), kwargs) if args else (args, {**kwargs, "model": merged})


def _with_keep(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    keep = inspect.Parameter("keep", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=KeepConfig | None)
    last = next((i for i, p in enumerate(parameters) if p.kind is inspect.Parameter.VAR_KEYWORD), len(parameters))
    return signature.replace(parameters=[*parameters[:last], keep, *parameters[last:]])


def _callbacks(context: KeepContext) -> list[Any]:
    """The run's callbacks in the order of their turns; a budget moves λ before a reading tells it."""
    forecast = ForecastCallback(context)
    callbacks: list[Any] = [FiniteCallback(context), DriftCallback(context), forecast]
    context.listeners.append(forecast)
    if context.keep.budget is not None:
        budget = BudgetCallback(context, context.keep.budget)
        callbacks.insert(0, budget)
        context.listeners.insert(0, budget)
    return callbacks


def call_inside(trainer: Any, model: nn.Module, compute: Callable[[nn.Module], _Result]) -> _Result:
    """`compute(unwrapped model)` as if it were the model's forward: with the work of DDP and FSDP around it."""
    inner = trainer.accelerator.unwrap_model(model)

    def forward(compute: Callable[[nn.Module], _Result]) -> _Result:
        # The wrapped forward that would have entered autocast is redirected here, so enter it here.
        with trainer.accelerator.autocast():
            return compute(inner)

    # `compute` travels as an argument because the wrappers cannot move an empty list of arguments to a device.
    result: _Result = _ForwardRedirection()(model, inner, forward, compute)
    return result


def host_of(trainer: Any) -> Host:
    """What a transformers `Trainer` decides."""
    args = trainer.args
    launched = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(trainer.accelerator.mixed_precision)
    processor = trainer.processing_class

    inner = trainer.accelerator.unwrap_model(trainer.model)
    return Host(
        device=args.device,
        dtype=launched or head_of(inner).weight_VD.dtype,
        rank=trainer.accelerator.process_index,
        world=trainer.accelerator.num_processes,
        sharded=trainer.is_fsdp_enabled or is_sharded(inner),
        output_dir=Path(args.output_dir),
        seed=args.seed,
        learning_rate=args.learning_rate,
        rows=args.per_device_train_batch_size,
        accumulate=args.gradient_accumulation_steps,
        # A vision model's processor serves through its tokenizer.
        tokenizer=getattr(processor, "tokenizer", None) or processor,
        call=lambda compute: call_inside(trainer, trainer.model_wrapped, compute),
        task_loss=lambda: held_out_loss(trainer),
        scheduler=lambda: trainer.lr_scheduler,
        tokens_seen=lambda: total_train_tokens(trainer),
    )
