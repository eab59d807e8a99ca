"""Adapters on disk: what their files say of the vocabulary and the dtypes that they were trained with."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import cached_file
from transformers.utils.quantization_config import QuantizationConfigMixin

from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.disk.dtypes import DTYPES
from keeptune.models.guarded import quiet, readable
from keeptune.models.quantized import BASE_QUANTIZATION


def resize_like(base: PreTrainedModel, weights: Path) -> None:
    """Give the base the number of tokens that an adapter's own embedding and head have, if it has them."""
    with safe_open(weights, framework="pt") as file:
        stored = {key.replace(".base_layer.", ".").removeprefix("base_model.model."): key for key in tuple(file.keys())}
        before: dict[int, int] = {}  # by weight, because a tied head shares the embedding's
        rows: dict[int, int] = {}
        for path, module in base.named_modules():
            if module in (base.get_input_embeddings(), base.get_output_embeddings()):
                before[id(module.weight)] = len(module.weight)
                if f"{path}.weight" in stored:
                    rows[id(module.weight)] = file.get_slice(stored[f"{path}.weight"]).get_shape()[0]
    rows = {**before, **rows}
    if rows == before:
        return
    own, count = base.get_input_embeddings().weight.shape[0], max(rows.values())
    if min(rows.values()) != count:
        raise SourceError(
            f"the adapter was trained on {count} tokens and its base has {own}, but of the embedding and the head it"
            " holds only one",
            "save the adapter again from the model in training, with both in modules_to_save",
        )
    logger.info(f"the adapter's vocabulary has {count} tokens, its base's {own}: the base is resized")
    base.resize_token_embeddings(count, mean_resizing=False)


def load_beside(base: PreTrainedModel, name: str, weights: Path) -> PreTrainedModel:
    """The base with the adapter of the folder or hub id `name` in its layers, not merged.

    The adapter has the dtype that it was trained in: TRL trains in bfloat16 on a quantized base, PEFT loads float32.
    """
    adapted = PeftModel.from_pretrained(base, name)
    with safe_open(weights, framework="pt") as file:
        stored = {key: file.get_slice(key).get_dtype() for key in tuple(file.keys())}
    for name, parameter in adapted.named_parameters():
        dtype = DTYPES.get(stored.get(name.replace(f".{adapted.active_adapter}", ""), ""))
        if dtype is not None:
            parameter.data = parameter.data.to(dtype)
    causal: PreTrainedModel = adapted.get_base_model().eval()
    return causal


def base_quantization(name: str) -> QuantizationConfigMixin:
    """How the adapter's base was quantized while the adapter was trained."""
    with quiet(), readable(name):
        file = Path(str(cached_file(name, BASE_QUANTIZATION)))
        return AutoQuantizationConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
