"""An adapter on a base that is in memory already: a second model of the same weights, and the adapter in its layers."""

from __future__ import annotations

import copy
from pathlib import Path

from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from transformers import PreTrainedModel
from transformers.utils import cached_file

from keeptune.models.adapters.inside import moving_initialization, own_forward
from keeptune.models.adapters.merging import peft_warnings, unread

_WEIGHTS = "adapter_model.safetensors"


def can_share(name: str) -> bool:
    """Whether the adapter in the folder or hub repository `name` leaves the weights of its base where they are.

    Initializations that move weights of the base do not, and virtual tokens are no layer of a model.
    """
    config = PeftConfig.from_pretrained(name)
    in_layers = hasattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "merge_and_unload")
    return in_layers and not config.is_prompt_learning and moving_initialization(config) is None


def twin_of(base: PreTrainedModel) -> PreTrainedModel:
    """A second model with the base's own parameters and buffers; what is put into its layers leaves the base alone."""
    weights = (*base.parameters(), *base.buffers())
    return copy.deepcopy(base, {id(tensor): tensor for tensor in weights})


def put_in(twin: PreTrainedModel, name: str) -> PreTrainedModel | None:
    """The twin with the adapter in its layers; None for an adapter that needs a forward pass of its own, or is unread.

    The weights of the base stay as trainable as they are.
    """
    trainable = [(parameter, parameter.requires_grad) for parameter in twin.parameters()]
    with peft_warnings(name):
        adapted = PeftModel.from_pretrained(twin, name).eval()
    for parameter, requires_grad in trainable:
        parameter.requires_grad_(requires_grad)
    if own_forward(adapted) or unread(adapted, Path(str(cached_file(name, _WEIGHTS)))):
        return None
    causal: PreTrainedModel = adapted.get_base_model()
    return causal
