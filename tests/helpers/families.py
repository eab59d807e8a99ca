"""Tiny random models of families with a cache of their own kind: state-space, linear attention, convolutions, windows.

Chunks, blocks and windows are shorter than the rows of tests.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

_COMMON: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}
_ZAMBA = {
    "num_hidden_layers": 4,
    "attention_head_dim": 16,
    "attention_hidden_size": 64,
    "layers_block_type": ["mamba", "hybrid"] * 2,
    "mamba_d_state": 8,
}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "falcon_mamba": {"state_size": 8, "time_step_rank": 4, "intermediate_size": 64},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 18, "head_dim": 8},
    "gemma4_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 6,
        "head_dim": 8,
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 259,
    },
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 6},
    "granitemoehybrid": {**_MAMBA, **_EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16},
    "jamba": {
        **_EXPERTS,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_dt_rank": 4,
        "mamba_d_state": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"attention_chunk_size": 8, "intermediate_size_mlp": 48, "head_dim": 8, **_EXPERTS},
    "mamba": {"state_size": 8, "time_step_rank": 4, "intermediate_size": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "minimax": {**_EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 8, "head_dim": 8},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "head_dim": 8,
    },
    "olmo_hybrid": {**_DELTA, "layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {**_DELTA, **_EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 6, "head_dim": 8},
    "rwkv": {"attention_hidden_size": 32, "context_length": 128},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2, "num_blocks": 2, "chunk_size": 8},
    "zamba": {**_ZAMBA, "n_mamba_heads": 2, "mamba_dt_rank": 4},
    "zamba2": {**_ZAMBA, "n_mamba_heads": 4, "mamba_headdim": 16, "mamba_ngroups": 1, "num_mem_blocks": 1},
}
FAMILIES = tuple(_FAMILIES)


def family_model(name: str, **changed: Any) -> Any:
    """A model of the family, every parameter random, those too that start at 0 or 1."""
    config = CONFIG_MAPPING[name]
    given = {**_COMMON, **_FAMILIES[name], **changed}
    if "num_layers" in given:
        del given["num_hidden_layers"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**given)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model
