"""Base and tuned model as one model and what differs between them; whatever cannot be repaired is refused in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, has_file

from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models import quantized
from keeptune.models.adapters import base_parameters, named_base, next_token_logits
from keeptune.models.limits import check_tokenizer
from keeptune.models.loading import is_adapter, load_model, load_tokenizer, resolve_model, stored_dtype
from keeptune.models.modeling import check_head, fingerprint
from keeptune.repair.change import Change, StoredTensors, state_of, store
from keeptune.system import release

LEAST_COSINE = 0.5
"""Weights of models trained apart are about orthogonal; those of a model and its fine-tuning are nearly parallel."""
_SHOWN = 3
_TOLERANCE = 1e-3  # of the logits' norm
_SCALED = "lora_B"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Both models by name, and their tokenizers: checked before any weight is read."""

    base: str
    tuned: str
    base_tokenizer: PreTrainedTokenizerBase
    tokenizer: PreTrainedTokenizerBase
    """The tuned model's."""
    adapter: bool
    """Whether the tuned model is an adapter on the base."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both models, in one."""

    names: Names
    model: PreTrainedModel
    change: Change
    base_name: str
    """Where the base is, as an adapter on it names it."""
    base_mark: str
    """Fingerprint of the base."""
    tuned_mark: str
    """Fingerprint of the tuned model's weights; of an adapter beside a quantized base that of its factors."""
    dtype: torch.dtype
    """In which the tuned model's weights are stored."""


def check_names(base: str, tuned: str) -> Names:
    """Resolve both names and compare the tokenizers.

    Raises:
        SourceError: no such model, or an adapter of another base.
        ConfigError: both are one model, or their tokens differ.
    """
    base_name, tuned_name = resolve_model(base), resolve_model(tuned)
    if base_name == tuned_name:
        raise ConfigError(f"{base} and {tuned} are the same model, so nothing was forgotten", "name two models")
    base_tokenizer, tokenizer = load_tokenizer(base), load_tokenizer(tuned)
    _check_tokens(base, tuned, base_tokenizer, tokenizer)
    return Names(base=base, tuned=tuned, base_tokenizer=base_tokenizer, tokenizer=tokenizer, adapter=is_adapter(tuned))


def _check_tokens(base: str, tuned: str, own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """Refuse tokens that differ. Tokens that only one of them names, such as those of a chat template, do no harm."""
    left, right = ({index: token for token, index in one.get_vocab().items()} for one in (own, other))
    differing = [index for index in sorted(left.keys() & right.keys()) if left[index] != right[index]]
    if differing:
        shown = ", ".join(f"{index}: {left[index]!r} and {right[index]!r}" for index in differing[:_SHOWN])
        raise ConfigError(
            f"{tuned} has another vocabulary than {base}: {len(differing)} tokens differ ({shown})",
            "name the base that the model was tuned from",
        )


def load_pair(names: Names, cache: Path, device: torch.device) -> Pair:
    """Load both models, one after the other, and keep one; it is the tuned model then.

    Args:
        cache: folder for the weights of both ends.

    Raises:
        SourceError: a model cannot be read, or has NaN or infinite weights.
        ConfigError: another base, another architecture, or nothing that differs.
    """
    if names.adapter and _quantized_base(names.tuned):
        return load_beside_base(names, device)
    base = load_model(names.base)
    _require_plain(names.base, base)
    check_tokenizer(base, names.base_tokenizer)
    base_mark, logits_TV, kind = fingerprint(base), next_token_logits(base), type(base)
    base_name: str = base.name_or_path
    shapes = {name: tensor.shape for name, tensor in state_of(base).items()}
    words = len(base.get_output_embeddings().weight)
    stored = store(state_of(base), cache / "base.safetensors", stored_dtype(names.base))
    del base
    release()
    tuned = load_model(names.tuned)
    _require_plain(names.tuned, tuned)
    check_tokenizer(tuned, names.tokenizer)
    if names.adapter:
        _check_base_of_adapter(names, base_mark)
    if type(tuned) is not kind:
        raise ConfigError(
            f"{names.tuned} is a {type(tuned).__name__} and {names.base} a {kind.__name__}",
            "name the base that the model was tuned from",
        )
    if (others := len(tuned.get_output_embeddings().weight)) != words:
        raise ConfigError(
            f"{names.tuned} predicts {others} tokens and {names.base} {words}: KL between the two is not defined",
            "repair a model whose vocabulary was not resized; keeptune audit --shared-vocabulary measures this one",
        )
    change = _compare(names, tuned, stored, shapes, cache)
    tuned.to(device)
    change.place_base()
    off = float((next_token_logits(tuned) - logits_TV).norm() / logits_TV.norm())
    change.place_tuned()
    if not off <= _TOLERANCE:
        raise ConfigError(
            f"the configuration of {names.tuned} computes other predictions from the base's weights than {names.base}"
            f" does (the logits differ by {off:.2g} of their norm), so weights between the two models are none",
            "compare the two config.json: positions, scales or tied embeddings were changed",
        )
    dtype = stored_dtype(names.tuned)
    marks = {"base_mark": base_mark, "tuned_mark": fingerprint(tuned)}
    return Pair(names=names, model=tuned, change=change, base_name=base_name, dtype=dtype, **marks)


def _require_plain(name: str, model: nn.Module) -> None:
    if (kind := quantized.describe(model)) is not None:
        raise ConfigError(
            f"{name} is quantized ({kind}): its weights are rounded to a few values, so there are none between two",
            "name the unquantized model; an adapter that was trained on a quantized base can be repaired as it is",
        )
    check_head(model)


def _compare(names: Names, tuned: Any, base: StoredTensors, shapes: dict[str, torch.Size], cache: Path) -> Change:
    """What differs. Raises `ConfigError` for models that are not base and fine-tuning, or that are equal."""
    state, fix = state_of(tuned), "name the base that the model was tuned from"
    _require_same_tensors(names, state, shapes, fix)
    seen: set[int] = set()
    differing: list[str] = []
    dot = own = other = 0.0
    for name, tensor in state.items():
        if tensor.data_ptr() in seen or not tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        before = base[name]
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise SourceError(f"{name} of {names.tuned} has NaN or infinite values", "name an earlier checkpoint")
        if torch.equal(before.to(tensor.dtype), tensor.cpu()):
            continue
        if not tensor.is_floating_point():
            raise ConfigError(f"{name} holds integers, and they differ between {names.base} and {names.tuned}", fix)
        differing.append(name)
        dot, own, other = (s + p for s, p in zip((dot, own, other), _products(before, tensor), strict=True))
    if not differing:
        raise ConfigError(
            f"{names.tuned} has the weights of {names.base}: there is nothing to repair", "name two models"
        )
    cosine = dot / max((own * other) ** 0.5, 1e-30)
    if cosine < LEAST_COSINE:
        raise ConfigError(
            f"{names.tuned} was not tuned from {names.base}: the cosine of their weights is {cosine:.2f} "
            "(expected above 0.9)",
            fix,
        )
    logger.info(f"{len(differing)} of {len(seen)} tensors differ between {names.base} and {names.tuned}")
    kept = store({name: state[name] for name in differing}, cache / "tuned.safetensors")
    return Change(model=tuned, base=base, tuned=kept, names=tuple(differing))


def _require_same_tensors(names: Names, state: dict[str, Tensor], shapes: dict[str, torch.Size], fix: str) -> None:
    own = {name: tensor.shape for name, tensor in state.items()}
    others = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
    if not others:
        return
    there, here = ("missing" if name is None else list(name) for name in (shapes.get(others[0]), own.get(others[0])))
    raise ConfigError(
        f"{names.tuned} has other tensors than {names.base}: {others[0]} is {there} in the base and {here} in the tuned"
        " model",
        fix,
    )


def _products(left: Tensor, right: Tensor) -> tuple[float, float, float]:
    one, two = left.double().flatten(), right.double().flatten().cpu()
    return float(one @ two), float(one @ one), float(two @ two)


def _named_base(tuned: str) -> tuple[str, str | None]:
    """The base that an adapter names, and the fingerprint recorded for it."""
    name = resolve_model(tuned)
    config = json.loads(Path(str(cached_file(name, "adapter_config.json"))).read_text(encoding="utf-8"))
    return named_base(name, str(config.get("base_model_name_or_path")))


def _quantized_base(tuned: str) -> bool:
    """Whether an adapter was trained on a base that is quantized, on disk or while loading."""
    base, _ = _named_base(tuned)
    return has_file(resolve_model(tuned), quantized.BASE_QUANTIZATION) or (
        quantized.quantized_with(AutoConfig.from_pretrained(resolve_model(base), trust_remote_code=False)) is not None
    )


def _check_base_of_adapter(names: Names, base_mark: str | None) -> None:
    """Refuse an adapter on another base. Raises `SourceError`.

    `base_mark` is the fingerprint of the base that was named; None loads it where it is needed.
    """
    own, mark = _named_base(names.tuned)
    if resolve_model(own) == resolve_model(names.base):
        return
    if mark is None or base_mark is None:
        mark = fingerprint(load_model(own))
    if mark != (base_mark or fingerprint(load_model(names.base))):
        raise SourceError(f"{names.tuned} is an adapter on {own}, which is not {names.base}", f"name {own} as the base")


def load_beside_base(names: Names, device: torch.device) -> Pair:
    """A LoRA beside its quantized base: the factors that start at zero scale its strength.

    Raises:
        ConfigError: another type of adapter, one that trains more than its factors, or a base quantized to 8 bits.
    """
    _check_base_of_adapter(names, None)
    model = load_model(names.tuned)
    check_tokenizer(model, names.tokenizer)
    quantized.settle(model)
    if quantized.depends_on_batch(model):
        raise ConfigError(
            f"the predictions of {names.tuned} depend on the rows beside a row (LLM.int8()'s outlier columns), so that"
            " stored predictions of its base cannot hold it",
            "quantize the base to 4 bits, or with llm_int8_threshold=0, or name an adapter on the unquantized base",
        )
    own = {id(parameter) for _, parameter in base_parameters(model)}
    trained = {name: p for name, p in model.named_parameters() if id(p) not in own}
    factors = {name: p.data for name, p in trained.items() if _SCALED in name}
    if more := [name for name in trained if "lora_A" not in name and _SCALED not in name]:
        raise ConfigError(
            f"the adapter {names.tuned} trains more than the factors of a LoRA ({more[0]}), and beside a quantized"
            " base only these can be scaled",
            "repair an adapter on the unquantized base",
        )
    kept = {name: tensor.clone() for name, tensor in factors.items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in kept.items()}
    change = Change(model=model, base=zeros, tuned=kept, names=tuple(factors), beside=True)
    logger.info(
        f"{names.tuned} is a LoRA beside a quantized base ({quantized.describe(model)}): its strength is repaired"
    )
    digest = hashlib.sha256()
    for name in sorted(kept):
        digest.update(kept[name].float().cpu().numpy().tobytes())
    return Pair(
        names=names,
        model=model,
        change=change,
        base_name=_named_base(names.tuned)[0],
        base_mark=fingerprint(model),
        tuned_mark=digest.hexdigest(),
        dtype=torch.float32,
    )
