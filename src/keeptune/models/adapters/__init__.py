"""All knowledge of PEFT: the model inside an adapter, the base's own parameters, the disabled adapter, its saved base.

`keeptune.models.adapters.merging` is apart: it imports PEFT, which is slow.
"""

from keeptune.models.adapters.inside import (
    PROBE_TOKENS,
    active_configs,
    adapter_off,
    base_parameters,
    base_state,
    causal_model,
    describe_adapters,
    evaluating,
    has_adapter,
    moved_base,
    next_token_logits,
    output_weight,
    own_forward,
    peft_states,
    perturbed_adapter,
    remove_idle_adapter,
    trainable_base_parameter,
    unrepeatable,
    without_adapter,
)
from keeptune.models.adapters.saved import RECORD, differs_from_disk, name_base, named_base, record_base, save_base

__all__ = [
    "PROBE_TOKENS",
    "RECORD",
    "active_configs",
    "adapter_off",
    "base_parameters",
    "base_state",
    "causal_model",
    "describe_adapters",
    "differs_from_disk",
    "evaluating",
    "has_adapter",
    "moved_base",
    "name_base",
    "named_base",
    "next_token_logits",
    "output_weight",
    "own_forward",
    "peft_states",
    "perturbed_adapter",
    "record_base",
    "remove_idle_adapter",
    "save_base",
    "trainable_base_parameter",
    "unrepeatable",
    "without_adapter",
]
