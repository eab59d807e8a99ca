"""Tiny models of many families whose rotary embedding is not the default one, as transformers 5 describes them."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

THETA = 100_000.0
VOCABULARY = 259


def families(width: int = 32) -> dict[str, tuple[str, dict[str, Any]]]:
    """Model type and fields of its configuration, by name."""
    head = width // 4
    base = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    grouped = {**base, "num_key_value_heads": 2}
    headed = {**grouped, "head_dim": head}
    local = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": width // 2}
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32}
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    return {
        "llama": ("llama", headed | rope()),
        "llama 3.1": ("llama", headed | rope("llama3", **llama3)),
        "llama linear": ("llama", headed | rope("linear", factor=4.0)),
        "llama dynamic": ("llama", headed | rope("dynamic", factor=2.0)),
        "mistral": ("mistral", headed | rope()),
        "mixtral": ("mixtral", grouped | rope() | {"num_local_experts": 4}),
        "qwen2": ("qwen2", grouped | rope()),
        "qwen2 yarn": ("qwen2", grouped | rope("yarn", **yarn)),
        "qwen3": ("qwen3", headed | rope()),
        "qwen3 moe": ("qwen3_moe", headed | rope() | experts),
        "gemma": ("gemma", headed | rope()),
        "gemma2": ("gemma2", headed | rope() | {"sliding_window": 8, "query_pre_attn_scalar": head}),
        "gemma3": ("gemma3_text", headed | local | {"query_pre_attn_scalar": head} | local_rope("linear", factor=8.0)),
        "phi": ("phi", base | rope(partial_rotary_factor=0.5)),
        "phi3": ("phi3", grouped | rope()),
        "phi3 longrope": ("phi3", grouped | longrope(head)),
        "phi4 mini": ("phi3", grouped | longrope(head, share=0.5)),
        "gpt-neox": ("gpt_neox", base | rope(partial_rotary_factor=0.5)),
        "olmo2": ("olmo2", grouped | rope()),
        "olmo3": ("olmo3", grouped | local | local_rope("yarn", **yarn, local=THETA)),
        "glm": ("glm", headed | rope(partial_rotary_factor=0.5)),
        "glm4": ("glm4", headed | rope(partial_rotary_factor=0.5)),
        "cohere": ("cohere", grouped | rope()),
        "cohere2": ("cohere2", grouped | rope() | {"sliding_window": 8}),
        "stablelm": ("stablelm", grouped | rope(partial_rotary_factor=0.5)),
        "starcoder2": ("starcoder2", grouped | rope()),
        "granite": ("granite", grouped | rope() | {"logits_scaling": 2.0}),
        "smollm3": ("smollm3", grouped | rope() | {"no_rope_layers": [1, 0]}),
        "nemotron": ("nemotron", headed | rope(partial_rotary_factor=0.5)),
        "persimmon": ("persimmon", base | rope(partial_rotary_factor=0.5)),
        "exaone4": ("exaone4", grouped | rope() | {"sliding_window": 8, "sliding_window_pattern": 2}),
        "ernie 4.5": ("ernie4_5", headed | rope()),
        "gpt-oss": ("gpt_oss", headed | local | rope("yarn", **yarn) | {"num_local_experts": 4}),
        "hunyuan": ("hunyuan_v1_dense", headed | rope()),
        "seed-oss": ("seed_oss", headed | rope()),
        "falcon": ("falcon", {"vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": 2} | falcon()),
        "gpt2": ("gpt2", {"vocab_size": VOCABULARY, "n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    }


def rope(kind: str = "default", **more: Any) -> dict[str, Any]:
    """One rotary embedding for all layers."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": THETA, **more}}


def local_rope(kind: str, *, local: float = 5000.0, **more: Any) -> dict[str, Any]:
    """One rotary embedding for layers of full attention, another for those of local attention."""
    own = {"rope_type": "default", "rope_theta": local}
    return {"rope_parameters": {"full_attention": rope(kind, **more)["rope_parameters"], "sliding_attention": own}}


def longrope(head: int, share: float = 1.0) -> dict[str, Any]:
    """Phi-3's, with a factor for each rotated frequency."""
    count = int(head * share) // 2
    factors = {
        "short_factor": [1.0 + 0.1 * index for index in range(count)],
        "long_factor": [2.0 + index for index in range(count)],
        "partial_rotary_factor": share,
    }
    return {**rope("longrope", **factors), "original_max_position_embeddings": 32}


def falcon() -> dict[str, Any]:
    """Fields that only Falcon has."""
    return {"num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True, **rope()}


def config_of(name: str, width: int = 32) -> PreTrainedConfig:
    """The configuration of a family."""
    kind, fields = families(width)[name]
    return AutoConfig.for_model(kind, **fields)
