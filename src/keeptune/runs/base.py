"""The model that a run starts from, and the dtype that its weights are saved in."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.loading import is_adapter, load_model, stored_dtype
from keeptune.models.quantized import check_trainable, describe, stored_bytes
from keeptune.runs.settings import TuneSettings


def load_base(settings: TuneSettings, *, bf16: bool) -> PreTrainedModel:
    """The model to train; `bf16`: whether its products are in bfloat16.

    Raises:
        ConfigError: a quantized model in a run that would train its weights, or on which no adapter can be trained.
    """
    model = load_model(settings.model, load_in=settings.load_in, shard=settings.shard, narrow=bf16)
    check_trainable(model, adapter=settings.lora is not None)
    if (kind := describe(model)) is not None:
        if is_adapter(settings.model):
            raise ConfigError(
                f"{settings.model} is an adapter on a quantized base ({kind}), into which it cannot be merged exactly",
                "name an adapter on the unquantized base, or that base merged with it",
            )
        logger.info(f"base: {kind}, {stored_bytes(model) / 2**20:,.0f} MiB of weights")
    return model


def dtype_to_save(settings: TuneSettings) -> torch.dtype | None:
    """The dtype of the saved weights; None where they are saved as they were trained."""
    if settings.save_dtype != "base":
        return getattr(torch, settings.save_dtype)  # type: ignore[no-any-return]
    return None if settings.lora else stored_dtype(settings.model)
