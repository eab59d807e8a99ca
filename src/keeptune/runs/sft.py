"""A table [sft] of a run file: every field of TRL's SFTConfig is honored, or refused by name before anything is loaded.

`docs/sft-config.md` lists all fields; a test walks them.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import Trainer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import SFTConfig

from keeptune.errors import ConfigError
from keeptune.models.guarded import quiet
from keeptune.train.host.arguments import check_optimizer, check_schedule
from keeptune.train.host.distributed import ZERO_3, ZERO_3_FIX, zero_stage

Run = Any  # a TuneSettings, whose module imports this one


class Refusal(NamedTuple):
    """Why `keeptune tune` does not take a field."""

    why: str
    fix: str
    when: Callable[[Any, Run], bool] = lambda value, run: True
    """Whether the given value is refused; the field's default never is, unless `even_default`."""
    even_default: bool = False


_ENCODED = "keeptune encodes the rows itself, before TRL sees them"
_NO_METRICS = "a run computes no metrics beside its losses"
_LOADED = "keeptune loads the model itself, and TRL would ignore it"
_HUB = "TRL would upload the folder of the run, with its replay pool and checkpoints"
_UPLOAD = "upload the finished model: hf upload NAME OUT/model"
_SCRIPTS = "example scripts read it, and no trainer does"
_IN_TRAINING = "a run evaluates while it trains, in the precision of training, and never after"

REFUSED: dict[str, Refusal] = {
    "output_dir": Refusal("the run's folder is --out", "give --out", lambda value, run: Path(value) != Path(run.out)),
    "seed": Refusal("the run's seed is --seed, also that of its split and adapter", "give --seed", even_default=True,
                    when=lambda value, run: bool(value != run.seed)),
    "max_length": Refusal(
        "it is below --max-length, so TRL would cut off the ends of rows, and their end tokens with them",
        "give --max-length instead: text is cut into windows, longer prompts and chats are left out and counted",
        lambda value, run: value is not None and value < run.max_length,
        even_default=True,
    ),
    "truncation_mode": Refusal("rows are never longer than --max-length, so nothing is truncated", "leave it out"),
    "dataset_text_field": Refusal(_ENCODED, "name the column of the data text"),
    "dataset_kwargs": Refusal(_ENCODED, "leave it out"),
    "chat_template_path": Refusal(_ENCODED, "give --chat-template"),
    "eos_token": Refusal(_ENCODED, "set eos_token in the tokenizer's folder"),
    "completion_only_loss": Refusal(
        f"{_ENCODED}: completions and answers bear loss, prompts do not", "give the data in the layout that you mean"
    ),
    "assistant_only_loss": Refusal(f"{_ENCODED}: of chats, only the assistant's turns bear loss", "leave it out"),
    "label_names": Refusal(
        "the targets of encoded rows are labels", "leave it out", lambda value, run: bool(value != ["labels"])
    ),
    "model_init_kwargs": Refusal(_LOADED, "save the model as you mean it, and give its folder"),
    "trust_remote_code": Refusal("keeptune runs no code from a model's folder", "use a model that transformers knows"),
    "resume_from_checkpoint": Refusal(_SCRIPTS, "give --resume"),
    "do_train": Refusal(_SCRIPTS, "leave it out"),
    "do_eval": Refusal(_SCRIPTS, "leave it out: held-out task loss is always read"),
    "do_predict": Refusal(_SCRIPTS, "leave it out"),
    "bf16_full_eval": Refusal(_IN_TRAINING, "leave it out"),
    "fp16_full_eval": Refusal(_IN_TRAINING, "leave it out"),
    "include_for_metrics": Refusal(_NO_METRICS, "leave it out"),
    "batch_eval_metrics": Refusal(_NO_METRICS, "leave it out"),
    "eval_do_concat_batches": Refusal(_NO_METRICS, "leave it out"),
    "push_to_hub": Refusal(_HUB, _UPLOAD),
    "hub_token": Refusal("a run file and run.json are no place for a secret", "log in with hf auth login, or HF_TOKEN"),
    "hub_model_id": Refusal(_HUB, _UPLOAD),
    "hub_strategy": Refusal(_HUB, _UPLOAD),
    "hub_private_repo": Refusal(_HUB, _UPLOAD),
    "hub_always_push": Refusal(_HUB, _UPLOAD),
    "hub_revision": Refusal(_HUB, _UPLOAD),
    "local_rank": Refusal("the launcher sets it", "start the run with torchrun or accelerate launch"),
    "deepspeed": Refusal(ZERO_3, ZERO_3_FIX, lambda value, run: zero_stage(value) == 3),
    "auto_find_batch_size": Refusal(
        "when memory ends it would start the run again, from weights that are already tuned", "lower --batch-size"
    ),
    "enable_jit_checkpoint": Refusal(
        "a run writes a checkpoint on SIGTERM by itself, and the two would take each other's signal", "leave it out"
    ),
    "fp16": Refusal(
        "accelerate does not train in float16 on a CPU", "use bf16", lambda value, run: not _has_accelerator(run)
    ),
    "eval_packing": Refusal(
        "TRL keeps packed documents apart only where it packs those to train on, too", "set packing, or leave it out",
        lambda value, run: bool(value) and not run.sft.get("packing", False),
    ),
    "activation_offloading": Refusal(
        "TRL moves activations from a GPU to the CPU, and there is no GPU", "leave it out",
        lambda value, run: not _has_accelerator(run),
    ),
    "use_liger_kernel": Refusal(
        "Liger's kernels are written in Triton and need a GPU", "leave it out",
        lambda value, run: not _has_accelerator(run),
    ),
}  # fmt: skip

# Fields that do nothing without another, and values of the other that do not count.
_NEEDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "eval_steps": ("eval_strategy", ("no",)),
    "eval_delay": ("eval_strategy", ("no",)),
    "fsdp_config": ("fsdp", (False, "")),
    "liger_kernel_config": ("use_liger_kernel", (False,)),
    "packing_strategy": ("packing", (False,)),
    "dataloader_persistent_workers": ("dataloader_num_workers", (0,)),
    "dataloader_prefetch_factor": ("dataloader_num_workers", (0,)),
    "dataloader_multiprocessing_context": ("dataloader_num_workers", (0,)),
    "trackio_space_id": ("report_to", ("none",)),
    "trackio_bucket_id": ("report_to", ("none",)),
    "trackio_static_space_id": ("report_to", ("none",)),
    "project": ("report_to", ("none",)),
    "run_name": ("report_to", ("none",)),
    "length_column_name": ("train_sampling_strategy", ("random", "sequential")),
}
# Fields that a flag sets too.
_FLAGS = {
    "max_steps": "steps",
    "num_train_epochs": "steps",
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "save_steps": "checkpoint_every",
}


def sft_config(run: Run, fields: Mapping[str, object]) -> SFTConfig:
    """The `SFTConfig` of a run: `fields`, which its flags set, and its table [sft], which wins.

    Raises:
        ConfigError: the table holds a field that keeptune or TRL refuses, or a value of another type.
    """
    for name, value in run.sft.items():
        _check(name, value, run)
    table = dict(run.sft)
    if table.get("fp16"):
        table.setdefault("bf16", False)
    try:
        with quiet():
            args = SFTConfig(**{**fields, **table})
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        name = _culprit(fields, table)
        raise refused_by_trl(error, [name] if name else list(table)) from error
    if args.fsdp and not torch.distributed.is_initialized():
        raise ConfigError(
            "[sft] fsdp shards over several processes, and this is one",
            "start it with: accelerate launch --config_file recipes/fsdp2.yaml -m keeptune tune ...",
        )
    check_optimizer(args)
    check_schedule(args)
    _check_optimizer_reads(args)
    return args


def _check_optimizer_reads(args: SFTConfig) -> None:
    """Refuse options that the optimizer does not read: transformers hands them to some optimizers only."""
    optimizer = str(getattr(args.optim, "value", args.optim))
    without = copy.copy(args)
    vars(without)["optim_args"] = None
    made = Trainer.get_optimizer_cls_and_kwargs
    if args.optim_args and made(args)[1] == made(without)[1]:
        raise ConfigError(f"[sft] optim_args has no effect with optim {optimizer!r}", "leave it out")
    if args.optim_target_modules and not optimizer.startswith(("galore", "apollo")):
        raise ConfigError(f"[sft] optim_target_modules has no effect with optim {optimizer!r}", "leave it out")


def refused_by_trl(error: Exception, names: list[str]) -> ConfigError:
    """An error of TRL or transformers about some fields of [sft], or about the flags where none are named."""
    said = " ".join(str(error).split()) or type(error).__name__
    where = f"[sft] {', '.join(names)}" if names else "the run's settings"
    return ConfigError(f"TRL refuses {where}: {said}", f"change {where}, or leave it out")


def unknown_fields(table: Mapping[str, object]) -> ConfigError | None:
    """An error that names the fields of a table which TRL's SFTConfig does not have; None if it has all of them."""
    known = [field.name for field in dataclasses.fields(SFTConfig)]
    unknown = sorted(set(table) - set(known))
    if not unknown:
        return None
    near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1, cutoff=0.75)]
    fix = f"write {', '.join(near)}" if near else "see the fields of trl.SFTConfig"
    return ConfigError(f"[sft] holds no field of TRL's SFTConfig: {', '.join(unknown)}", fix)


def _check(name: str, value: Any, run: Run) -> None:
    expected = typing.get_type_hints(SFTConfig)[name]
    refusal, default = REFUSED.get(name), _default(name)
    if not _fits(value, expected) and not (name == "fsdp" and isinstance(value, bool)):
        # Of a value that may be a secret only its type is said.
        raise ConfigError(f"[sft] {name} is of type {type(value).__name__}", _describe(expected))
    if refusal is not None and (refusal.even_default or value != default) and refusal.when(value, run):
        raise ConfigError(f"[sft] {name}: {refusal.why}", refusal.fix)
    if name in _NEEDS and value != default:
        other, idle = _NEEDS[name]
        if run.sft.get(other, _default(other)) in (None, *idle):
            raise ConfigError(f"[sft] {name} has no effect without {other}", f"set {other} too, or leave {name} out")
    if name in _FLAGS:
        flag = _FLAGS[name]
        told, usual = getattr(run, flag), {field.name: field.default for field in dataclasses.fields(run)}[flag]
        if told not in (usual, value):
            raise ConfigError(f"[sft] {name} and --{flag.replace('_', '-')} are both given", "leave one of them out")
    if name == "report_to":
        _check_reporters([value] if isinstance(value, str) else value or [])


def _check_reporters(names: list[str]) -> None:
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"[sft] report_to names {name!r}, which transformers does not know", f"choose of {known}")
        if name not in get_available_reporting_integrations():
            raise ConfigError(
                f"[sft] report_to names {name!r}, whose package is not installed",
                f"pip install {name}, or leave it out",
            )


def _culprit(fields: Mapping[str, object], table: Mapping[str, object]) -> str | None:
    """The one field of the table that SFTConfig refuses by itself."""
    for name, value in table.items():
        try:
            with quiet():
                SFTConfig(**{**fields, "bf16": False, name: value})
        except (ValueError, TypeError, ImportError, RuntimeError):
            return name
    return None


def _default(name: str) -> Any:
    field = SFTConfig.__dataclass_fields__[name]
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _fits(value: Any, expected: Any) -> bool:
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(expected))
    if origin is Literal:
        return value in typing.get_args(expected)
    if origin is not None:
        expected = origin
    if expected in (int, float):
        return isinstance(value, (int, float) if expected is float else int) and not isinstance(value, bool)
    if isinstance(expected, type) and issubclass(expected, Enum):
        return value in [member.value for member in expected]
    return expected is Any or isinstance(value, expected)


def _describe(expected: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: "a table",
        list: "a list",
    }
    parts = typing.get_args(expected) if typing.get_origin(expected) in (typing.Union, types.UnionType) else (expected,)
    said = [names.get(typing.get_origin(part) or part) for part in parts]
    fitting = " or ".join(dict.fromkeys(filter(None, said)))
    return f"give {fitting}" if fitting else "leave it out: it takes a Python object, which no run file can hold"


def _has_accelerator(run: Run) -> bool:
    return torch.accelerator.is_available() and not run.sft.get("use_cpu", False)
