"""What a trainer's arguments say that would end a run hours later: refused before a pool is written."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from pyarrow import compute  # type: ignore[import-untyped]
from transformers import Trainer, get_scheduler

from keeptune.errors import ConfigError
from keeptune.models.limits import check_length, learned_positions


def check_arguments(trainer: Any) -> None:
    """Refuse arguments that a run cannot follow.

    Raises:
        ConfigError: `auto_find_batch_size`, or see `check_optimizer` and `check_schedule`.
    """
    if trainer.args.auto_find_batch_size:
        raise ConfigError(
            "auto_find_batch_size starts a run again from weights that are already tuned, when memory ends",
            "leave it out, and lower per_device_train_batch_size",
        )
    if trainer.optimizer is None and trainer.optimizer_cls_and_kwargs is None:
        check_optimizer(trainer.args, trainer.model)
    if trainer.lr_scheduler is None:
        check_schedule(trainer.args)


def check_task_rows(trainer: Any) -> None:
    """Refuse rows that are longer than a model's learned positions: training would end at the first of them.

    Rows whose ids are made during training, or that do not lie in a data set of `datasets`, are not seen here.

    Raises:
        ConfigError: a row of the training or evaluation set is too long.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if learned_positions(model) is None:
        return
    given = trainer.eval_dataset
    for rows in (trainer.train_dataset, *(given.values() if isinstance(given, dict) else [given])):
        if not isinstance(rows, Dataset) or "input_ids" not in rows.column_names:
            continue
        columns = rows.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=10_000)
        longest = max((compute.max(compute.list_value_length(of["input_ids"])).as_py() for of in columns), default=0)
        check_length(model, longest, "task rows")


def check_optimizer(args: Any, model: Any = None) -> None:
    """Refuse an optimizer that cannot be made.

    Raises:
        ConfigError: its package is missing, or it has no such option.
    """
    try:
        made, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if made.__module__.startswith("torch.optim"):
            made([torch.zeros(1, requires_grad=True)], **options)
    except (ImportError, ValueError, TypeError, RuntimeError) as error:
        raise _refused("optim", args.optim, "optim_args", args.optim_args, error) from error


def check_schedule(args: Any) -> None:
    """Refuse a learning-rate schedule that cannot be made.

    Raises:
        ConfigError: it lacks an option of its own, or has no such option.
    """
    idle = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    kind, options = args.lr_scheduler_type, args.lr_scheduler_kwargs
    try:
        get_scheduler(kind, idle, 1, 2, scheduler_specific_kwargs=options)
    except (ImportError, ValueError, TypeError) as error:
        raise _refused("lr_scheduler_type", kind, "lr_scheduler_kwargs", options, error) from error


def _refused(field: str, value: Any, options_field: str, options: Any, error: Exception) -> ConfigError:
    with_options = f" with {options_field} {options!r}" if options else ""
    reason = " ".join(str(error).split())
    return ConfigError(
        f"{field} {str(getattr(value, 'value', value))!r}{with_options} cannot be used: {reason}",
        f"install what it needs, or change {field}{' and ' + options_field if options else ''}",
    )
