"""The repaired model on disk: all weights, or an adapter on the base where the change has a low rank.

Shapes: O outputs and I inputs of a linear layer, R rank.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file, has_file

from keeptune.models.adapters import RECORD, name_base, next_token_logits, record_base
from keeptune.models.disk.saving import make_portable, save_model
from keeptune.models.guarded import quiet
from keeptune.models.loading import ADAPTER_WEIGHTS, resolve_model
from keeptune.models.quantized import BASE_QUANTIZATION
from keeptune.repair.change import Change, state_of
from keeptune.repair.methods.svd import decomposed, rounding
from keeptune.repair.pair import Pair

_TOLERANCE = 1e-4  # of the logits' norm
_MOST = 0.5
"""An adapter of more than this share of the changed weights' size saves nothing."""
_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A candidate's change as the factors of a LoRA of scale 1, left [O, R] and right [R, I], by the layer's name."""

    of_layer: dict[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max((left.shape[1] for left, _ in self.of_layer.values()), default=0)


def factors_of(change: Change) -> Factors | str:
    """The factors of the candidate in the model; or why an adapter cannot be exact, in words."""
    causal: Any = change.model
    head, state, layers = causal.get_output_embeddings(), state_of(causal), dict(causal.named_modules())
    found: dict[str, tuple[Tensor, Tensor]] = {}
    size = whole = 0
    for name in change.names:
        own, base = state[name].detach().cpu().float(), change.base[name]
        layer = layers.get(name.removesuffix(".weight"))
        if torch.equal(own, base):
            continue
        if not isinstance(layer, nn.Linear | Conv1D) or layer is head or not name.endswith(".weight"):
            return f"{name} differs, and it is no weight of a linear layer"
        delta_OI = own - base
        values, vectors = decomposed(delta_OI)
        kept = vectors[:, values > max(rounding(own), rounding(base))]
        wide = delta_OI.shape[0] < delta_OI.shape[1]
        left, right = (kept, kept.T @ delta_OI) if wide else (delta_OI @ kept, kept.T)
        if isinstance(layer, Conv1D):  # its weight is stored transposed
            left, right = right.T, left.T
        found[name.removesuffix(".weight")] = left.contiguous(), right.contiguous()
        size, whole = size + left.numel() + right.numel(), whole + delta_OI.numel()
    if not found:
        return "it is the base itself"
    factors = Factors(of_layer=found)
    if size > _MOST * whole:
        return f"its change has a rank of up to {factors.rank}, so that an adapter would be no smaller"
    return factors


def place_factors(change: Change, factors: Factors) -> None:
    """Make the model the base with these factors, as loading the adapter will."""
    layers = dict(change.model.named_modules())

    def make(name: str, base: Tensor, tuned: Tensor) -> Tensor:
        layer = name.removesuffix(".weight")
        if layer not in factors.of_layer:
            return base
        left, right = factors.of_layer[layer]
        added = left @ right
        return base + (added.T if isinstance(layers[layer], Conv1D) else added)

    change.place(make)


def save_factors(pair: Pair, factors: Factors, temporary: Path, home: Path) -> None:
    """Save the factors as a LoRA on the base, in fp32; `temporary` will be `home`.

    Raises:
        RuntimeError: the adapter's logits are not the candidate's, which the model holds.
    """
    causal: Any = pair.model
    before_TV = next_token_logits(causal)
    pair.change.place_base()
    ranks = {name: left.shape[1] for name, (left, _) in factors.of_layer.items() if left.shape[1]}
    config = LoraConfig(
        r=factors.rank,
        lora_alpha=factors.rank,
        rank_pattern=ranks,
        alpha_pattern=ranks,  # so that every layer's scale is 1
        target_modules=list(ranks),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(causal, config)
    try:
        for name, layer in adapted.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                left, right = factors.of_layer[name]
                layer.lora_B["default"].weight.data.copy_(left)
                layer.lora_A["default"].weight.data.copy_(right)
        off = float((next_token_logits(adapted) - before_TV).norm() / before_TV.norm())
        if not off <= _TOLERANCE:
            raise RuntimeError(f"the adapter's logits differ from the candidate's by {off:.2g} of their norm")
        name_base(adapted, pair.base_name)
        with quiet():
            adapted.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)
    finally:
        adapted.unload()
    record_base(temporary, home, pair.base_mark)
    pair.names.tokenizer.save_pretrained(temporary)
    make_portable(temporary)


def save_beside(pair: Pair, temporary: Path, home: Path) -> None:
    """Save the factors of an adapter beside a quantized base as they are in the model, with all else of its files."""
    source = resolve_model(pair.names.tuned)
    for name in (_CONFIG, BASE_QUANTIZATION, RECORD):
        if has_file(source, name):
            shutil.copyfile(str(cached_file(source, name)), temporary / name)
    own = {f"base_model.model.{n}".replace(".default", ""): p for n, p in pair.model.named_parameters()}
    with safe_open(str(cached_file(source, ADAPTER_WEIGHTS)), framework="pt") as file:
        tensors = {key: own[key].detach().cpu().contiguous() for key in tuple(file.keys())}
    save_file(tensors, temporary / ADAPTER_WEIGHTS, {"format": "pt"})
    record_base(temporary, home, pair.base_mark)
    pair.names.tokenizer.save_pretrained(temporary)
    make_portable(temporary)


def save_whole(pair: Pair, temporary: Path) -> None:
    """Save all weights, in the dtype in which the tuned model's are stored."""
    dtype = pair.dtype if pair.dtype.itemsize < 4 else None
    with quiet():
        save_model(pair.model, pair.names.tokenizer, temporary, dtype)
