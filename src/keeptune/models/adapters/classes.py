"""The classes of PEFT that its other parts derive from.

They are imported only in a program that has imported PEFT: in another no model has an adapter, and the import is slow.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from typing import Any, NamedTuple


class Classes(NamedTuple):
    """Classes of PEFT, whose names and places a later PEFT may change: they stand here only."""

    model: type[Any]
    """The model around a model with one type of adapter."""
    tuner: type[Any]
    """What puts layers into a model; its forward pass is the model's, unless a type overrides it."""
    layer: type[Any]
    """A layer around a layer of the base."""
    wrapper: type[Any]
    """A module in the place of one of the base's, trained whole or in rows."""
    attention: type[Any]
    """Attention with an adaption prompt, around that of the base."""
    token_layer: type[Any]
    """An embedding of which some rows are trained."""


def peft_classes() -> Classes | None:
    """The classes; None in a program without PEFT."""
    return _imported() if "peft" in sys.modules else None


@functools.cache
def _imported() -> Classes:
    tuners = import_module("peft.tuners.tuners_utils")
    return Classes(
        model=import_module("peft").PeftModel,
        tuner=tuners.BaseTuner,
        layer=tuners.BaseTunerLayer,
        wrapper=import_module("peft.utils.other").AuxiliaryTrainingWrapper,
        attention=import_module("peft.tuners.adaption_prompt.layer")._BaseAdaptedAttention,
        token_layer=import_module("peft.tuners.trainable_tokens").TrainableTokensLayer,
    )
