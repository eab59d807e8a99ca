"""Merging an adapter into its base, checked: the merged model must give the logits of the two apart."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.adapters.inside import (
    active_configs,
    describe_adapters,
    next_token_logits,
    tuner_layers,
    unrepeatable,
)

_WEIGHTS = "adapter_model.safetensors"
# Of the norm of the logits. Merging rounds each weight once to the dtype of the base.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-3, 0.05


def load_merged(base: PreTrainedModel, name: str) -> PreTrainedModel:
    """`base` with the adapter in the folder or hub repository `name` merged into its weights.

    Weights that modules share (a tied head, replicated layers) get copies of their own where the adapter changes one
    of them: merging would change the others too.

    Raises:
        SourceError: PEFT cannot merge or repeat an adapter of this type, or the merged model gives other logits.
    """
    config = PeftConfig.from_pretrained(name)
    if initialization := unrepeatable(config):
        raise SourceError(
            f"the adapter {name} was started with {initialization}, which moved weights of its base into it; loading "
            "cannot move the same weights again",
            "save the adapter with PEFT's path_initial_model_for_weight_conversion, which adds them back",
        )
    if not hasattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "merge_and_unload"):
        raise _not_merged(config.peft_type.value, name, "it is no change of weights")
    with peft_warnings(name):
        _resize(base, name)
        model = PeftModel.from_pretrained(base, name).eval()
        if lost := unread(model, Path(str(cached_file(name, _WEIGHTS)))):
            raise SourceError(
                f"PEFT does not read {len(lost)} tensors of the adapter {name} back, {lost[0]} among them",
                "the adapter is whole on disk: load it with another version of PEFT, or tune all weights",
            )
        before = next_token_logits(model)
        kind = describe_adapters(model)
        _unshare(model)
        try:
            merged: Any = model.merge_and_unload().eval()
        except (AttributeError, NotImplementedError, ValueError, RuntimeError) as error:
            raise _not_merged(kind, name, str(error).strip().splitlines()[0]) from error
    _declare_untied(merged)
    off = float((next_token_logits(merged) - before).norm() / before.norm())
    tolerance = _TOLERANCE_16_BIT if merged.dtype.itemsize == 2 else _TOLERANCE
    if not off <= tolerance:
        raise SourceError(
            f"merging the {kind} adapter {name} into its base changes the logits by {off:.2g} of their norm "
            f"(expected below {tolerance:g})",
            "the adapter does not fit this base or cannot be merged exactly; check base_model_name_or_path in its "
            "adapter_config.json",
        )
    result: PreTrainedModel = merged.requires_grad_(True)  # PEFT has frozen the base
    return result


def _not_merged(kind: str, name: str, why: str) -> SourceError:
    return SourceError(
        f"the {kind} adapter {name} cannot be merged into its base: {why}",
        f"measure it from Python without merging: keeptune.measure(base, PeftModel.from_pretrained(base, {name!r}), "
        "texts)",
    )


@contextmanager
def peft_warnings(name: str) -> Iterator[None]:
    """Log the first line of what PEFT warns of in the block, once each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    lines = [str(w.message).strip().splitlines()[:1] for w in caught if issubclass(w.category, UserWarning)]
    for text in dict.fromkeys(" ".join(line) for line in lines):
        logger.warning(f"{name}: {text}")


def _resize(base: Any, name: str) -> None:
    """Resize the base's embedding to the one that is saved with the adapter, if one is."""
    with safe_open(str(cached_file(name, _WEIGHTS)), framework="pt") as file:
        saved = [key for key in file.keys() if key.endswith(("embed_tokens.weight", "wte.weight"))]  # noqa: SIM118
        sizes = {file.get_slice(key).get_shape()[0] for key in saved if "lora_" not in key}
    if PeftConfig.from_pretrained(name).is_prompt_learning or len(sizes) != 1:
        return
    (size,), own = sizes, len(base.get_input_embeddings().weight)
    if size != own:
        logger.info(f"{name} was trained on an embedding of {size} tokens: resizing the base's {own}")
        base.resize_token_embeddings(size, mean_resizing=False)


def _unshare(model: Any) -> None:
    """Give each adapted module its own copy of weights that other modules use too; so each replicated layer."""
    uses = Counter(p.data_ptr() for m in model.modules() for p in m._parameters.values() if p is not None and p.numel())
    replicated = any(getattr(config, "layer_replication", None) for config in active_configs(model))
    adapted = [layer.get_base_layer() for layer in tuner_layers(model)]
    layers = list(model.get_base_model().get_decoder().layers.modules()) if replicated else []
    for module in dict.fromkeys((*adapted, *layers)):
        for name, parameter in module.named_parameters(recurse=False):
            if uses[parameter.data_ptr()] > 1:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))


def _declare_untied(causal: Any) -> None:
    """Say in the configuration that head and embedding are two, where merging has made them so."""
    head, embedding = causal.get_output_embeddings(), causal.get_input_embeddings()
    if torch.equal(head.weight, embedding.weight):
        return
    for config in (causal.config, causal.config.get_text_config()):
        config.tie_word_embeddings = False
    causal.all_tied_weights_keys = {}


def unread(model: nn.Module, weights: Path) -> list[str]:
    """Names of the tensors in an adapter's file that loading left out of `model`, by their values."""
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    with safe_open(weights, framework="pt") as file:
        both = [key for key in tuple(file.keys()) if key in own]
        return [key for key in both if not torch.equal(file.get_tensor(key).to(own[key].dtype), own[key].cpu())]


def check_read_back(model: nn.Module) -> None:
    """Raise `ConfigError` if PEFT saves a part of the model's adapter under names that it does not read again."""
    if not isinstance(model, PeftModel):
        return
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    lost = set_peft_model_state_dict(model, state).unexpected_keys  # the values that it has already
    if lost:
        raise ConfigError(
            f"PEFT does not read {len(lost)} tensors of this adapter back once they are saved, {lost[0]} among them",
            "tune all weights (leave out --lora), or use another version of PEFT",
        )
