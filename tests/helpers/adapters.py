"""A configuration of every adapter type of the installed PEFT, and of every option of LoRA that changes base or pass.

A type that PEFT gains later has no entry in `SETTINGS` and gets `target_modules` alone; a test that cannot make it
then says so.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import config as lora
from peft.tuners.lora.corda import preprocess_corda
from transformers import LlamaConfig, LlamaForCausalLM

TYPES = sorted(str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
_TARGETS: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
_VIRTUAL: dict[str, Any] = {"num_virtual_tokens": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10, **_TARGETS},
    "ADAMSS": {"r": 8, "num_subspaces": 2, **_TARGETS},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "BOFT": {"boft_block_size": 4, **_TARGETS},
    "C3A": {"block_size": 8, **_TARGETS},
    "CARTRIDGE": _VIRTUAL,
    "CPT": {"cpt_token_ids": [4, 5, 6, 7], "cpt_mask": [1] * 4, "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "FOURIERFT": {"n_frequency": 10, **_TARGETS},
    "GRALORA": {"r": 8, "gralora_k": 2, **_TARGETS},
    "HRA": {"r": 4, **_TARGETS},
    "IA3": {"feedforward_modules": [], **_TARGETS},
    "LILY": {"r": 4, "stride_A": 1, "num_B": 2, **_TARGETS},
    "LN_TUNING": {},
    "MISS": {"r": 4, **_TARGETS},
    "MULTITASK_PROMPT_TUNING": {"num_tasks": 2, **_VIRTUAL},
    "OFT": {"r": 0, "oft_block_size": 4, **_TARGETS},
    "OSF": {"effective_rank": 8, **_TARGETS},
    "P_TUNING": {"encoder_hidden_size": 16, **_VIRTUAL},
    "PREFIX_TUNING": _VIRTUAL,
    "PROMPT_TUNING": _VIRTUAL,
    "PSOFT": {"r": 4, **_TARGETS},
    "PVERA": {"r": 4, **_TARGETS},
    "RANDLORA": {"r": 4, **_TARGETS},
    "ROAD": {"group_size": 8, **_TARGETS},
    "SHADOW": {"r": 4},
    "SHIRA": {"r": 2, **_TARGETS},
    "SUPERTUNING": {"r": 4, **_TARGETS},
    "TINYLORA": {"u": 4, **_TARGETS},
    "TRAINABLE_TOKENS": {"token_indices": [5, 9], "target_modules": ["embed_tokens"]},
    "UNILORA": {"r": 2, "theta_d_length": 32, **_TARGETS},
    "VBLORA": {"r": 2, "num_vectors": 4, "vector_length": 4, "topk": 2, **_TARGETS},
    "VERA": {"r": 4, **_TARGETS},
    "WAVEFT": {"n_frequency": 16, **_TARGETS},
}
# Options of LoraConfig.
OPTIONS: dict[str, dict[str, Any]] = {
    "use_dora": {"use_dora": True},
    "use_rslora": {"use_rslora": True},
    "init_lora_weights=False": {"init_lora_weights": False},
    "init_lora_weights='gaussian'": {"init_lora_weights": "gaussian"},
    "init_lora_weights='orthogonal'": {"init_lora_weights": "orthogonal"},
    "init_lora_weights='eva'": {"init_lora_weights": "eva", "eva_config": lora.EvaConfig()},
    "init_lora_weights='pissa'": {"init_lora_weights": "pissa"},
    "init_lora_weights='pissa_niter_4'": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights='olora'": {"init_lora_weights": "olora"},
    "bias='all'": {"bias": "all"},
    "bias='lora_only'": {"bias": "lora_only"},
    "lora_bias": {"lora_bias": True},
    "modules_to_save: head": {"modules_to_save": ["lm_head"]},
    "modules_to_save: embedding": {"modules_to_save": ["embed_tokens"]},
    "target_modules: embedding": {"target_modules": ["embed_tokens"]},
    "target_modules: head": {"target_modules": ["lm_head"]},
    "ensure_weight_tying": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "trainable_token_indices": {"trainable_token_indices": [5, 9]},
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "target_parameters": {"target_modules": [], "target_parameters": ["q_proj.weight"]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [7, 8]},
    "lora_dropout": {"lora_dropout": 0.5},
}
# Initializations that need a pass over data first, or a GPU.
PREPARED: dict[str, dict[str, Any]] = {
    "init_lora_weights='corda'": {"init_lora_weights": "corda", "corda_config": lora.CordaConfig()},
    "init_lora_weights='loftq'": {"init_lora_weights": "loftq", "loftq_config": lora.LoftQConfig()},
}
if hasattr(lora, "LoraGAConfig"):
    PREPARED["init_lora_weights='lora_ga'"] = {"init_lora_weights": "lora_ga", "lora_ga_config": lora.LoraGAConfig()}
if hasattr(lora, "BdLoraConfig"):
    OPTIONS["use_bdlora"] = {
        "use_bdlora": lora.BdLoraConfig(target_modules_bd_a=["q_proj"], nblocks=2, match_strict=False)
    }
if hasattr(lora, "KasaConfig"):
    OPTIONS["kasa_config"] = {"kasa_config": lora.KasaConfig()}
if hasattr(lora, "MontecloraConfig"):
    OPTIONS["monteclora_config"] = {"monteclora_config": lora.MontecloraConfig()}
if hasattr(lora, "VeloraConfig"):
    OPTIONS["velora_config"] = {"velora_config": lora.VeloraConfig()}


def make_base(tie: bool = True) -> LlamaForCausalLM:
    """Two layers with biases in the attention, and as many key as query heads, which some adapters need."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        attention_bias=True,
        tie_word_embeddings=tie,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def make_config(name: str, folder: Path) -> Any:
    """The configuration of a type in `TYPES` or an option in `OPTIONS`; `folder` is for what it must be made of."""
    if name in (options := {**OPTIONS, **PREPARED}):
        return LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM", **_TARGETS, **options[name]})
    if name == "XLORA":  # mixes trained LoRAs
        expert = folder / "expert"
        get_peft_model(make_base(), make_config("init_lora_weights=False", folder)).save_pretrained(expert)
        settings: dict[str, Any] = {"hidden_size": 32, "adapters": {"0": str(expert)}, "xlora_depth": 1}
    else:
        settings = SETTINGS.get(name, _TARGETS)
    return PEFT_TYPE_TO_CONFIG_MAPPING[name](**settings, task_type="CAUSAL_LM")  # type: ignore[index]


def prepared(base: Any, config: Any) -> Any:
    """The base, after the pass over data that an initialization asks for."""
    ids = torch.arange(3, 67).view(2, 32)
    kind = getattr(config, "init_lora_weights", None)
    if kind == "corda":
        preprocess_corda(base, config, run_model=lambda: base(input_ids=ids[:1]))
    if kind == "lora_ga":
        preprocess = import_module("peft.tuners.lora.loraga").preprocess_loraga
        preprocess(base, config, train_step=lambda: base(input_ids=ids, labels=ids).loss.backward())
        base.zero_grad()
    return base


def moved(model: Any, scale: float = 0.1) -> Any:
    """The model with every trainable parameter changed, as by training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model
