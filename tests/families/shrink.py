"""Any transformers configuration made tiny: the sizes that a class has are set, whatever it calls them."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 259
WIDTH, HEADS, KEY_HEADS, HEAD, LAYERS, EXPERTS = 32, 4, 2, 8, 2, 4

# What families call their sizes.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim", "emb_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "num_encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "swa_num_attention_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "num_encoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_decoder_attention_heads", "linear_num_value_heads", "linear_num_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads", "linear_num_key_heads"), KEY_HEADS),
    "num_kv_heads": KEY_HEADS,
    **dict.fromkeys(("head_dim", "swa_head_dim", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim"), HEAD),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "linear_head_dim", "kv_channels", "index_head_dim"), HEAD),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "ffn_dim", "decoder_ffn_dim"), 2 * WIDTH),
    "encoder_ffn_dim": 2 * WIDTH,
    **dict.fromkeys(("shared_intermediate_size", "intermediate_size_mlp", "dense_intermediate_size"), 2 * WIDTH),
    **dict.fromkeys(("dff", "dim_ff", "prefix_dense_intermediate_size", "block_ffn_dim"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), WIDTH // 2),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), WIDTH // 2),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "local_attention"), 8),
    **dict.fromkeys(("attention_chunk_size", "window_size"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), HEADS),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 2 * WIDTH // HEADS),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"), 0.0),
    **dict.fromkeys(("layerdrop", "decoder_layerdrop", "encoder_layerdrop", "embedding_dropout", "dropout_p"), 0.0),
    **dict.fromkeys(("resid_dropout", "embed_dropout", "emb_pdrop", "residual_dropout", "mlp_dropout"), 0.0),
    "index_n_heads": 2,
    "index_topk": 8,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "mamba_dt_rank": 4,
    "time_step_rank": 4,
    "lru_width": WIDTH,
    "rotary_dim": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.15,
    "init_std": 0.15,
}  # fmt: skip


# Of what looks and listens beside the language model, where the names differ from those above.
_TOWER: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "embed_dim", "projection_dim", "out_hidden_size", "output_proj_dims"), WIDTH),
    **dict.fromkeys(("vision_output_dim", "projector_input_dim", "projector_output_dim", "mm_embed_dim"), WIDTH),
    **dict.fromkeys(("num_key_value_heads", "attention_heads", "num_heads", "conf_num_attention_heads"), HEADS),
    **dict.fromkeys(("depth", "conf_num_hidden_layers", "num_hidden_layers", "num_global_layers"), 1),
    **dict.fromkeys(("image_size", "patch_size"), 16),
    **dict.fromkeys(("num_position_embeddings", "position_embedding_size", "mm_posemb_size"), 16),
    "mlp_dim": 2 * WIDTH,
    "window_size": 16,
}


def shrunk(model_type: str, **special: Any) -> PreTrainedConfig:
    """The configuration of that type, tiny; `special` wins over the general sizes.

    The special `text` and `vision` are for the parts of a multimodal one: dictionaries, `model_type` in them where the
    type leaves it open.
    """
    kind = CONFIG_MAPPING[model_type]
    text, vision = special.pop("text", {}), special.pop("vision", {})
    parts: dict[str, Any] = {}
    for name, part in kind.sub_configs.items():
        if name in special:
            continue
        own = text if "text" in name else vision
        if "model_type" in own:
            part = CONFIG_MAPPING[own["model_type"]]
        parts[name] = _shrunk(part, own, tower="text" not in name)
    return _shrunk(kind, {**parts, **special})


def _shrunk(kind: Any, special: dict[str, Any], tower: bool = False) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    sizes = {name: value for name, value in {**_SIZES, **(_TOWER if tower else {})}.items() if name in fields}
    return kind(**{**sizes, **{name: value for name, value in special.items() if name != "model_type"}})
