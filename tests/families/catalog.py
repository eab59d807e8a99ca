"""The families: a tiny configuration of each, by name.

Each stands for what people fine-tune, or for what an architecture does differently: the groups say which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedConfig

from tests.families.shrink import HEADS, WIDTH, shrunk

Group = Literal[
    "dense",
    "moe",
    "sliding window",
    "ssm and hybrid",
    "mla",
    "soft cap and scale",
    "multimodal",
    "head",
    "old",
    "not causal",
    "encoder-decoder",
]

_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_MLA = {"num_key_value_heads": HEADS}
_CLIP = {"model_type": "clip_vision_model"}
_SIGLIP = {"model_type": "siglip_vision_model"}
_IDS = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
_LLAMA = {"model_type": "llama"}
_GEMMA_IDS = {"boi_token_index": 250, "eoi_token_index": 251, "image_token_index": 252}
_GEMMA4_IDS = {
    "boi_token_id": 248, "eoi_token_id": 249, "image_token_id": 250, "video_token_id": 251, "boa_token_id": 252,
    "eoa_token_index": 253, "audio_token_id": 254,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One tiny configuration."""

    name: str
    group: Group
    model_type: str
    special: dict[str, Any] = field(default_factory=dict)
    stacked: bool = False
    """Whether it runs through its layers several times, so that an audit has no view of single layers."""

    def config(self) -> PreTrainedConfig:
        """The configuration, of transformers' own class."""
        return shrunk(self.model_type, **self.special)


def _plain(group: Group, names: str) -> list[Family]:
    return [Family(name, group, name) for name in names.split()]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in [
        *_plain(
            "dense",
            "llama qwen2 qwen3 mistral phi phi3 gemma olmo olmo2 smollm3 stablelm glm glm4 ernie4_5 seed_oss helium"
            " arcee apertus jais2 hunyuan_v1_dense ministral3 nemotron persimmon diffllama bitnet doge beam flint"
            " kolibri1 falcon",
        ),
        Family("hrm_text", "dense", "hrm_text", stacked=True),
        *_plain("old", "gpt2 gpt_neox gptj gpt_bigcode codegen opt bloom openai-gpt ctrl biogpt xglm"),
        Family("mpt", "old", "mpt", {"attn_config": {"attn_pdrop": 0}}),
        Family("gpt_neo", "old", "gpt_neo", {"attention_types": [[["global", "local"], 1]]}),
        *(Family(f"{name}, decoder", "old", name, {"is_decoder": True}) for name in ("bert", "roberta", "electra")),
        Family("bart, decoder", "old", "bart"),
        *_plain("sliding window", "gemma3_text olmo3 ministral cwm exaone4 starcoder2 granite_swa mimo_v2_flash"),
        Family("mistral, no window", "sliding window", "mistral", {"sliding_window": None}),
        Family("qwen2, window", "sliding window", "qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
        Family(
            "gemma3_text, both kinds",
            "sliding window",
            "gemma3_text",
            {"layer_types": ["sliding_attention", "full_attention"]},
        ),
        Family("modernbert-decoder", "sliding window", "modernbert-decoder", {"pad_token_id": 2}),
        Family(
            "gemma3n_text",
            "sliding window",
            "gemma3n_text",
            {
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "hidden_size_per_layer_input": 8,
                "laurel_rank": 4,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
            },
        ),
        Family("gemma4_text, default heads", "sliding window", "gemma4_text", {"hidden_size_per_layer_input": 8}),
        Family(
            "gemma4_text, one head width",
            "sliding window",
            "gemma4_text",
            {"hidden_size_per_layer_input": 8, "global_head_dim": 8},
        ),
        Family(
            "gemma4_text, MoE",
            "moe",
            "gemma4_text",
            {
                "hidden_size_per_layer_input": 0,
                "enable_moe_block": True,
                "num_experts": 4,
                "top_k_experts": 2,
                "moe_intermediate_size": 16,
            },
        ),
        Family(
            "gemma4_text, shared keys",
            "sliding window",
            "gemma4_text",
            {
                "hidden_size_per_layer_input": 8,
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
        ),
        *_plain("soft cap and scale", "gemma2 granite nanochat vaultgemma inkling2_text"),
        *(
            Family(name, "soft cap and scale", name, {"logit_scale": 0.5})
            for name in ("cohere", "cohere2", "cohere2_moe")
        ),
        Family("inkling_text", "soft cap and scale", "inkling_text", {"logits_mup_width_multiplier": 2.0}),
        Family("gemma2, low caps", "soft cap and scale", "gemma2", {"final_logit_softcapping": 3.0}),
        Family(
            "granite, scaled", "soft cap and scale", "granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0}
        ),
        Family("hyperclovax", "soft cap and scale", "hyperclovax", {"logits_scaling": 4.0}),
        Family("minicpm3", "soft cap and scale", "minicpm3", {**_MLA, "scale_emb": 3.0, "dim_model_base": 16}),
        Family("llama, tied", "head", "llama", {"tie_word_embeddings": True}),
        Family("llama, biased everywhere", "head", "llama", {"attention_bias": True, "mlp_bias": True}),
        Family("gemma, untied", "head", "gemma", {"tie_word_embeddings": False}),
        Family("phi, tied", "head", "phi", {"tie_word_embeddings": True}),
        Family("opt, projected embedding", "head", "opt", {"word_embed_proj_dim": 16}),
        Family("llama, vocabulary of 320", "head", "llama", {"vocab_size": 320}),
        *_plain(
            "moe",
            "mixtral qwen2_moe qwen3_moe olmoe granitemoe granitemoe_swa granitemoeshared gpt_oss phimoe glm4_moe dots1"
            " jetmoe ernie4_5_moe flex_olmo minimax_m2 hunyuan_v1_moe hy_v3 hy_v4 afmoe laguna solar_open mellum"
            " exaone_moe aria_text llama4_text minimax_m3_vl_text",
        ),
        Family("mixtral, balanced", "moe", "mixtral", {"output_router_logits": True}),
        Family("qwen3_moe, sparse", "moe", "qwen3_moe", {"decoder_sparse_step": 1, "mlp_only_layers": []}),
        Family("lfm2_moe", "moe", "lfm2_moe", {"layer_types": ["conv", "full_attention"]}),
        Family("zaya", "moe", "zaya", {"num_experts_per_tok": 1}),
        Family(
            "dbrx",
            "moe",
            "dbrx",
            {
                "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
                "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
            },
        ),
        *(
            Family(name, "mla", name, _MLA)
            for name in (
                "deepseek_v2",
                "deepseek_v3",
                "deepseek_v32",
                "glm4_moe_lite",
                "glm_moe_dsa",
                "longcat_flash",
                "axk1",
            )
        ),
        # transformers 5.23 sets the embedding of its padding token to zero whenever it loads it.
        Family("youtu", "mla", "youtu", {**_MLA, "tie_word_embeddings": False}),
        Family("deepseek_v4", "mla", "deepseek_v4"),
        *_plain("ssm and hybrid", "mamba falcon_mamba lfm2 minimax olmo_hybrid"),
        Family("rwkv", "ssm and hybrid", "rwkv", {"num_hidden_layers": 7}),
        Family("mamba2", "ssm and hybrid", "mamba2", {"head_dim": 16}),
        Family("falcon_h1", "ssm and hybrid", "falcon_h1", {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5}),
        Family("bamba", "ssm and hybrid", "bamba", {"attn_layer_indices": [1]}),
        Family(
            "jamba",
            "ssm and hybrid",
            "jamba",
            {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
        ),
        Family(
            "zamba",
            "ssm and hybrid",
            "zamba",
            {
                "num_hidden_layers": 4,
                "layers_block_type": ["linear_attention", "hybrid"] * 2,
                "use_mamba_kernels": False,
                "attention_head_dim": 16,
                "attention_hidden_size": 64,
            },
        ),
        Family(
            "zamba2",
            "ssm and hybrid",
            "zamba2",
            {
                "num_hidden_layers": 3,
                "layers_block_type": ["linear_attention", "linear_attention", "hybrid"],
                "n_mamba_heads": 4,
                "use_mem_rope": True,
            },
        ),
        Family(
            "nemotron_h",
            "ssm and hybrid",
            "nemotron_h",
            {"layer_types": ["linear_attention", "full_attention", "mlp", "moe"]},
        ),
        Family("granitemoehybrid", "ssm and hybrid", "granitemoehybrid", {"layer_types": ["mamba", "attention"]}),
        Family("recurrent_gemma", "ssm and hybrid", "recurrent_gemma", {"num_hidden_layers": 3}),
        Family("xlstm", "ssm and hybrid", "xlstm", {"hidden_size": 64, "qk_dim_factor": 1.0}),
        *(
            Family(name, "ssm and hybrid", name, _HYBRID)
            for name in (
                "qwen3_next",
                "qwen3_5_text",
                "qwen3_5_moe_text",
            )
        ),
        *(Family(name, "ssm and hybrid", name, {**_HYBRID, **_MLA}) for name in ("kimi_linear", "bailing_hybrid")),
        Family("gemma3", "multimodal", "gemma3", {"vision": _SIGLIP, **_GEMMA_IDS, "mm_tokens_per_image": 1}),
        Family(
            "gemma4",
            "multimodal",
            "gemma4",
            {"text": {"hidden_size_per_layer_input": 8}, "audio_config": None, **_GEMMA4_IDS},
        ),
        Family("qwen3_5", "multimodal", "qwen3_5", {"text": _HYBRID, **_IDS}),
        Family(
            "llama4", "multimodal", "llama4", {"boi_token_index": 250, "eoi_token_index": 251, "image_token_index": 252}
        ),
        Family("mllama", "multimodal", "mllama", {"text": {"cross_attention_layers": []}, "image_token_index": 250}),
        Family("qwen2_vl", "multimodal", "qwen2_vl", {"text": _MROPE, **_IDS}),
        Family(
            "qwen2_5_vl", "multimodal", "qwen2_5_vl", {"text": _MROPE, "vision": {"fullatt_block_indexes": [0]}, **_IDS}
        ),
        Family("qwen3_vl", "multimodal", "qwen3_vl", {"vision": {"deepstack_visual_indexes": [0]}, **_IDS}),
        Family(
            "llava",
            "multimodal",
            "llava",
            {"text": _LLAMA, "vision": _CLIP, "image_token_index": 250, "vision_feature_layer": -1},
        ),
        Family(
            "llava_next",
            "multimodal",
            "llava_next",
            {"text": _LLAMA, "vision": _CLIP, "image_token_index": 250, "vision_feature_layer": -1},
        ),
        Family(
            "paligemma",
            "not causal",
            "paligemma",
            {
                "text": {"model_type": "gemma"},
                "vision": _SIGLIP,
                "image_token_index": 250,
                "projection_dim": WIDTH,
            },
        ),
        Family(
            "mistral3",
            "multimodal",
            "mistral3",
            {
                "text": {"model_type": "mistral"},
                "vision": {"model_type": "pixtral", "head_dim": 8},
                "image_token_index": 250,
                "tie_word_embeddings": False,
            },
        ),
        Family(
            "internvl",
            "multimodal",
            "internvl",
            {
                "text": {"model_type": "qwen2"},
                "vision": {"image_size": [16, 16], "patch_size": [8, 8]},
                "image_token_id": 250,
                "tie_word_embeddings": False,
            },
        ),
        Family("smolvlm", "multimodal", "smolvlm", {"text": _LLAMA, "image_token_id": 250}),
        Family(
            "aya_vision",
            "multimodal",
            "aya_vision",
            {
                "text": {"model_type": "cohere2", "logit_scale": 0.5, "tie_word_embeddings": True},
                "vision": _SIGLIP,
                "image_token_index": 250,
            },
        ),
        Family("bert", "not causal", "bert"),
        Family("xlnet", "not causal", "xlnet"),
        *(Family(name, "encoder-decoder", name) for name in ("t5", "mt5", "bart", "pegasus", "marian", "t5gemma")),
    ]
}
