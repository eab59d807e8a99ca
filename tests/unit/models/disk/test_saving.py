"""What is saved reads as the same model: the names of transformers 4 beside those of transformers 5, and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from keeptune.models.disk.saving import make_portable, portable_config, portable_tokenizer_config, save_model
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.saved_families import THETA, config_of, families

# What transformers 4 calls things where it has a name of its own; for all others, the rule.
THETA_NAMES = {"gpt-neox": "rotary_emb_base"}
SHARE_NAMES = {"gpt-neox": "rotary_pct"}
# Phi-3 alone spells its scaling with three keys, which transformers 5 completes from other fields.
THREE_KEYS = ("phi3 longrope", "phi4 mini")
NOT_COMPARED = {"_name_or_path", "architectures", "dtype", "transformers_version", "torch_dtype"}


@pytest.mark.parametrize("family", families())
def test_a_config_reads_the_same_in_transformers_5_and_has_the_names_of_4(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    config.save_pretrained(tmp_path)
    make_portable(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    rope = saved.get("rope_parameters")
    if rope is not None:
        whole = rope.get("full_attention", rope)
        assert saved[THETA_NAMES.get(family, "rope_theta")] == whole["rope_theta"] == THETA
        assert ("rope_scaling" in saved) == (whole["rope_type"] != "default")
        if "partial_rotary_factor" in whole:
            assert saved[SHARE_NAMES.get(family, "partial_rotary_factor")] == whole["partial_rotary_factor"]
    before, after = config.to_dict(), AutoConfig.from_pretrained(tmp_path).to_dict()
    differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - NOT_COMPARED
    if family in THREE_KEYS:
        assert before["rope_parameters"].items() <= after["rope_parameters"].items()
        differ -= {"rope_parameters"}
    assert differ <= {"partial_rotary_factor"}


def test_local_and_global_layers_keep_a_rotary_base_each() -> None:
    saved = portable_config(config_of("gemma3").to_dict())
    assert (saved["rope_theta"], saved["rope_local_base_freq"]) == (THETA, 5000.0)
    assert saved["rope_scaling"]["factor"] == 8.0


def test_a_config_inside_a_config_is_written_too() -> None:
    text = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": THETA}}
    assert portable_config({"model_type": "llava", "text_config": text})["text_config"]["rope_theta"] == THETA


def test_renamed_fields_are_written_under_both_names() -> None:
    saved = portable_config(json.loads(config_of("qwen3 moe").to_json_string()))
    assert saved["num_experts"] == saved["num_local_experts"] == 4


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("TokenizersBackend", "PreTrainedTokenizerFast"),
        ("LlamaTokenizer", "PreTrainedTokenizerFast"),
        ("GemmaTokenizer", "PreTrainedTokenizerFast"),
        ("CohereTokenizer", "PreTrainedTokenizerFast"),
        ("Qwen3_5Tokenizer", "PreTrainedTokenizerFast"),
        ("Qwen2Tokenizer", "Qwen2Tokenizer"),
        ("GPT2Tokenizer", "GPT2Tokenizer"),
        ("GPTNeoXTokenizer", "GPTNeoXTokenizer"),
    ],
)
def test_tokenizers_are_named_as_transformers_4_knows_them(written: str, read: str) -> None:
    assert portable_tokenizer_config({"backend": "tokenizers", "tokenizer_class": written})["tokenizer_class"] == read


def test_a_tokenizer_that_no_tokenizer_json_describes_is_left_alone() -> None:
    config: dict[str, Any] = {"backend": "sentencepiece", "tokenizer_class": "SiglipTokenizer"}
    assert portable_tokenizer_config(config) == config


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer", "CohereTokenizer"])
def test_tokens_stay_as_they_were(kind: str, tmp_path: Path) -> None:
    texts = ["Hello world, a text about keeping.", "def f(x):\n    return x + 1", "  numbers 12345, ünïcödé"]
    tokenizer = getattr(transformers, kind)().train_new_from_iterator(texts * 10, vocab_size=400)
    tokenizer.save_pretrained(tmp_path)
    make_portable(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    probes = [*texts, "two  spaces<eos></s><|endoftext|>"]
    assert [again(text)["input_ids"] for text in probes] == [tokenizer(text)["input_ids"] for text in probes]


def test_a_model_and_its_special_tokens_come_back(tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    save_model(model, tokenizer, tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["additional_special_tokens"] == ["<tool>"]
    assert "extra_special_tokens" not in saved
    again, tokens = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    input_BT = torch.arange(12)[None]
    assert torch.equal(again(input_ids=input_BT).logits, model(input_ids=input_BT).logits)
    assert tokens("a <tool> b")["input_ids"] == tokenizer("a <tool> b")["input_ids"]
    assert tokens.chat_template == tokenizer.chat_template


def test_a_model_is_saved_in_another_dtype_with_its_head_tied(tmp_path: Path) -> None:
    save_model(make_model(tie=True), make_tokenizer(), tmp_path, dtype=torch.bfloat16)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert again.lm_head.weight is again.model.embed_tokens.weight
