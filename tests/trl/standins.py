"""Local stand-ins for the tiny models and data sets that TRL's own tests fetch from the hub.

TRL's tests name them `trl-internal-testing/NAME`. In a working directory that has such folders, transformers and
datasets read these instead of the hub: nothing is patched. Models are random, with the vocabulary of bytes and TRL's
own chat templates, so that tests which look for a known template find it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.helpers.models import make_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
BASE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Name: model type, fields, chat template of TRL's (None: none).
MODELS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "tiny-Qwen2ForCausalLM-2.5": ("qwen2", {}, "qwen2_5"),
    "tiny-Qwen3ForCausalLM": ("qwen3", {"head_dim": 8}, "qwen3"),
    "tiny-Qwen3MoeForCausalLM": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
        "qwen3",
    ),
    "tiny-CohereForCausalLM": ("cohere", {}, "cohere"),
    "tiny-Cohere2ForCausalLM": ("cohere2", {}, "cohere2"),
    "tiny-GptOssForCausalLM": ("gpt_oss", {**_MOE, "head_dim": 8}, "gptoss"),
    "tiny-GPTNeoXForCausalLM": ("gpt_neox", {}, None),
    "tiny-GemmaForCausalLM": ("gemma", {"head_dim": 8}, "gemma"),
    "tiny-Gemma2ForCausalLM": ("gemma2", {"head_dim": 8}, "gemma"),
    "tiny-LlamaForCausalLM-3": ("llama", {}, "llama3"),
    "tiny-LlamaForCausalLM-3.1": ("llama", {}, "llama3_1"),
    "tiny-LlamaForCausalLM-3.2": ("llama", {}, "llama3_2"),
    "tiny-MistralForCausalLM-0.1": ("mistral", {}, None),
    "tiny-MistralForCausalLM-0.2": ("mistral", {}, None),
    "tiny-Phi3ForCausalLM": ("phi3", {}, "phi3"),
    "tiny-Olmo3ForCausalLM": ("olmo3", {}, "qwen2_5"),
    "tiny-Lfm2ForCausalLM": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2"),
    "tiny-Lfm2ForCausalLM-2.5": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2_2_5"),
    "tiny-Glm4MoeForCausalLM": (
        "glm4_moe",
        {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1},
        "glm4moe",
    ),
    "tiny-NemotronHForCausalLM-nano": (
        "nemotron_h",
        {
            "layers_block_type": ["mamba", "attention", "moe"],
            "head_dim": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 4,
            "n_groups": 1,
            "ssm_state_size": 16,
            "n_routed_experts": 4,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 32,
        },
        "nemotron_3_nano",
    ),
}


def make_text(home: Path) -> None:
    """Write every text model."""
    for name, (kind, fields, template) in MODELS.items():
        _save_text_model(home / name, kind, fields, template)
    _save_remote(home / "tiny-RemoteForCausalLM")
    # A published model, of which a test takes the chat template.
    _save_text_model(home.parent / "Qwen" / "Qwen3-4B", *MODELS["tiny-Qwen3ForCausalLM"])


def make_bytes(template: str | None, **named: str) -> PreTrainedTokenizerFast:
    """Bytes, with special tokens that processors ask for by name."""
    plain = make_tokenizer(None if template is None else (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"))
    if not named:
        return plain
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token=plain.bos_token,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        unk_token=plain.unk_token,
        extra_special_tokens=named,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(named.values())})
    return tokenizer


def _save_text_model(folder: Path, kind: str, fields: dict[str, Any], template: str | None) -> None:
    torch.manual_seed(0)
    tokenizer = make_bytes(template)
    given = {**BASE, "vocab_size": len(tokenizer), **fields}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_remote(folder: Path) -> None:
    """A Llama whose classes stand beside its weights, to be loaded with `trust_remote_code` only."""
    _save_text_model(folder, "llama", {}, "llama3_2")
    (folder / "configuration_remote.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass RemoteConfig(LlamaConfig):\n    model_type = 'remote'\n",
        encoding="utf-8",
    )
    (folder / "modeling_remote.py").write_text(
        "from transformers import LlamaForCausalLM\n\nfrom .configuration_remote import RemoteConfig\n\n\n"
        "class RemoteForCausalLM(LlamaForCausalLM):\n    config_class = RemoteConfig\n",
        encoding="utf-8",
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "configuration_remote.RemoteConfig"}
    classes["AutoModelForCausalLM"] = "modeling_remote.RemoteForCausalLM"
    config |= {"model_type": "remote", "architectures": ["RemoteForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
