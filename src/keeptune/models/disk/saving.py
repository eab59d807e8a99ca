"""Saved models that other programs read as the same model.

transformers 5 writes `rope_parameters` and `tokenizer_class: TokenizersBackend`. transformers 4 refuses the second and
silently ignores the first (it reads a rotary base of 10000 for any other); vLLM and converters that read the names of
transformers 4 do the same. So the old names are written beside the new ones, from which transformers 5 reads the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

from keeptune.storage import write_text

# What transformers 4 calls the rotary base and the rotated share of a head, where it has names of its own.
_THETA = {
    "gpt_neox": "rotary_emb_base",
    "gpt_neox_japanese": "rotary_emb_base",
    "modernbert-decoder": "global_rope_theta",
}
_LOCAL_THETA = {
    "gemma3_text": "rope_local_base_freq",
    "gemma3n_text": "rope_local_base_freq",
    "modernbert-decoder": "local_rope_theta",
}
_SHARE = {"gpt_neox": "rotary_pct", "gpt_neox_japanese": "rotary_pct"}
# Its Phi-3 refuses a rope_scaling with any other key.
_LONGROPE = ("short_factor", "long_factor")
_LONGROPE_ONLY = ("phi3", "phi4_multimodal")
# Of the tokenizers that tokenizer.json describes, those that transformers 4 has under the same name and reads alike. It
# has no TokenizersBackend and no Qwen3_5Tokenizer, and its Llama, Gemma and Cohere tokenizers add a BOS of their own.
_SAME_TOKENIZERS = ("CodeLlamaTokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "T5Tokenizer")


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Save a model with its tokenizer as safetensors, readable for transformers 4 and 5 and what reads their files.

    `dtype` is that of the saved weights; by default the model's own.
    """
    folder = Path(folder)
    model.save_pretrained(folder, state_dict=None if dtype is None else _cast(model.state_dict(), dtype))
    tokenizer.save_pretrained(folder)
    make_portable(folder)
    if dtype is not None:
        _rewrite(folder / "config.json", lambda config: {**config, **_dtype_names(str(dtype).removeprefix("torch."))})


def make_portable(folder: Path) -> None:
    """Write the names of transformers 4 into config.json and tokenizer_config.json of a saved model, if it has them."""
    _rewrite(folder / "config.json", portable_config)
    _rewrite(folder / "tokenizer_config.json", portable_tokenizer_config)


def portable_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """A config.json of transformers 5 with the names of transformers 4 beside its own."""
    kind = str(config.get("model_type", ""))
    both = {key: portable_config(part) if _is_config(part) else part for key, part in config.items()}
    # Fields that were renamed: transformers 5 knows both names and writes one, transformers 4 reads the other.
    for name, stored in _renamed(kind).items():
        if stored in both:
            both.setdefault(name, both[stored])
    rope, dtype = both.get("rope_parameters"), both.get("dtype")
    if isinstance(rope, dict):
        both |= _rope_names(rope, kind)
    if isinstance(dtype, str):
        both |= _dtype_names(dtype)
    return both


def portable_tokenizer_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """A tokenizer_config.json that transformers 4 reads."""
    if config.get("backend") == "tokenizers" and config.get("tokenizer_class") not in _SAME_TOKENIZERS:
        # The generic class takes tokenizer.json as it stands. With it, transformers 4 would also return token_type_ids,
        # which decoders refuse.
        inputs = ["input_ids", "attention_mask"]
        config = {"model_input_names": inputs, **config, "tokenizer_class": "PreTrainedTokenizerFast"}
    if isinstance(tokens := config.get("extra_special_tokens"), list):
        # To transformers 4 this name means a dict, and the list has another; transformers 5 reads either.
        others = {name: value for name, value in config.items() if name != "extra_special_tokens"}
        config = {**others, "additional_special_tokens": tokens}
    return config


def _rope_names(rope: Mapping[str, object], kind: str) -> dict[str, object]:
    """The rotary embedding as transformers 4 writes it."""
    by_layer = "full_attention" in rope
    whole = rope["full_attention"] if by_layer else rope
    if not isinstance(whole, dict) or "rope_theta" not in whole:
        return {}
    names: dict[str, object] = {_THETA.get(kind, "rope_theta"): whole["rope_theta"]}
    if "partial_rotary_factor" in whole:
        names[_SHARE.get(kind, "partial_rotary_factor")] = whole["partial_rotary_factor"]
    sliding = rope.get("sliding_attention")
    if by_layer and kind in _LOCAL_THETA and isinstance(sliding, dict):
        names[_LOCAL_THETA[kind]] = sliding["rope_theta"]
    if whole.get("rope_type", "default") != "default":
        names["rope_scaling"] = _rope_scaling(whole, kind)
        if "original_max_position_embeddings" in whole and kind in _LONGROPE_ONLY:
            names["original_max_position_embeddings"] = whole["original_max_position_embeddings"]
    return names


def _rope_scaling(rope: Mapping[str, object], kind: str) -> Mapping[str, object]:
    if kind in _LONGROPE_ONLY:
        return {"type": rope["rope_type"], **{name: rope[name] for name in _LONGROPE}}
    # transformers 5 takes rope_scaling in place of rope_parameters, so nothing may be missing from it.
    return dict(rope)


def _renamed(kind: str) -> dict[str, str]:
    return CONFIG_MAPPING[kind].attribute_map if kind in CONFIG_MAPPING else {}


def _dtype_names(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "torch_dtype": dtype}


def _is_config(part: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(part, dict) and "model_type" in part


def _cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The floating-point tensors in `dtype`; tensors that are one stay one, as tied heads do."""
    done: dict[int, Tensor] = {}
    for tensor in state.values():
        if tensor.is_floating_point():
            done.setdefault(tensor.data_ptr(), tensor.to(dtype))
    return {name: done[tensor.data_ptr()] if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _rewrite(file: Path, change: Callable[[Mapping[str, object]], Mapping[str, object]]) -> None:
    if file.is_file():
        content = change(json.loads(file.read_text(encoding="utf-8")))
        write_text(file, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
