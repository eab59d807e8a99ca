"""Rows longer than a model's learned positions, ids without an embedding, texts without an end: refused beforehand."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from trl import SFTConfig

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.limits import check_length, check_sizes, check_tokenizer, declared_positions, learned_positions
from keeptune.replay.generate import sample_pool, text_pool
from keeptune.train.config import KeepConfig
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer, pack_head

POSITIONS = 24
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
_ROTARY = {**_SIZES, "max_position_embeddings": POSITIONS}
# Family, its sizes, its learned positions (or None), and the longest row that it can read (None: any).
FAMILIES: dict[str, tuple[dict[str, Any], int | None, int | None]] = {
    "gpt2": (_GPT, POSITIONS, POSITIONS),
    "openai-gpt": (_GPT, POSITIONS, POSITIONS),
    "gpt_bigcode": (_GPT, POSITIONS, POSITIONS),
    "gpt_neo": (
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": POSITIONS,
        },
        POSITIONS,
        POSITIONS,
    ),
    "opt": ({**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": POSITIONS}, 24, 24),
    "biogpt": (_ROTARY, POSITIONS, POSITIONS),
    "ctrl": ({**_GPT, "dff": 48}, POSITIONS, POSITIONS),
    "gptj": ({**_GPT, "rotary_dim": 4}, POSITIONS, POSITIONS),
    "codegen": ({**_GPT, "rotary_dim": 4}, POSITIONS, POSITIONS),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": POSITIONS}, None, POSITIONS),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, None, None),
    "falcon": ({**_SIZES, "alibi": True}, None, None),
    "xglm": (
        {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": POSITIONS},
        None,
        None,
    ),
    "llama": (_ROTARY, None, None),
    "gpt_neox": (_ROTARY, None, None),
    "gemma": ({**_ROTARY, "head_dim": 8, "num_key_value_heads": 2}, None, None),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, None, None),
}


def family(name: str) -> Any:
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = CONFIG_MAPPING[name](vocab_size=259, **FAMILIES[name][0], **ends)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="keeptune")
    return caplog


def reads(model: Any, length: int) -> bool:
    try:
        with torch.no_grad():
            model(input_ids=torch.full((1, length), 5), use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", FAMILIES)
def test_the_longest_row_of_a_family(name: str, messages: pytest.LogCaptureFixture) -> None:
    model, (_, learned, longest) = family(name), FAMILIES[name]
    assert learned_positions(model) == learned
    if longest is not None:
        assert reads(model, longest) and not reads(model, longest + 1), "what the model itself does"
        check_length(model, longest)
        with pytest.raises(ConfigError, match=f"rows of {longest + 1} tokens are longer than the {longest} positions"):
            check_length(model, longest + 1)
        assert not messages.records
        return
    assert reads(model, 4 * POSITIONS)
    check_length(model, 4 * POSITIONS)
    declared = declared_positions(model)
    assert ("its predictions there may be poor" in messages.text) == (declared is not None and declared < 96)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_quantized_output_layer_hides_no_positions(name: str) -> None:
    model = family(name)
    pack_head(model)
    assert learned_positions(model) == FAMILIES[name][1]


def test_the_patches_of_a_vision_tower_are_no_positions_of_text() -> None:
    sizes = {**_SIZES, "vocab_size": 259, "max_position_embeddings": 64}
    tower = {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, **_SIZES}
    text = {"model_type": "llama", **sizes}
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=tower, image_token_index=250))
    assert "position_embedding" in " ".join(name for name, _ in model.named_modules())
    assert learned_positions(model.eval()) is None
    check_length(model, 65)
    pack_head(model)
    assert learned_positions(model) is None


def test_an_adapter_is_looked_through() -> None:
    adapted = get_peft_model(family("gpt2"), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    with pytest.raises(ConfigError, match="GPT2LMHeadModel"):
        check_length(adapted, POSITIONS + 1)


def more_tokens() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<new>", "<newer>"])
    return tokenizer


def without_ends() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    return tokenizer


def test_tokenizers_that_do_not_fit() -> None:
    model = make_model()
    check_tokenizer(model, make_tokenizer())
    check_tokenizer(make_model(vocab=300), more_tokens())
    with pytest.raises(ConfigError, match="ids up to 260, and LlamaForCausalLM embeds 259 tokens") as refused:
        check_tokenizer(model, more_tokens())
    assert "resize_token_embeddings(261)" in refused.value.fix
    with pytest.raises(ConfigError, match="neither a pad_token nor an eos_token"):
        check_tokenizer(model, without_ends())
    for left in ("pad_token", "eos_token"):
        tokenizer = make_tokenizer()
        setattr(tokenizer, left, None)
        check_tokenizer(model, tokenizer)


def test_every_entry_in_python_asks_before_it_writes(tmp_path: Any) -> None:
    model, tokenizer, folder = family("gpt2"), make_tokenizer(), tmp_path / "pool"
    texts = ["some text that is long enough " * 4] * 4
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7] * 4, [5] * (POSITIONS + 1)], "labels": [[5, 6, 7] * 4, [5] * 25]})

    def train(keep: KeepConfig, rows: Dataset = rows, tokenizer: Any = tokenizer) -> None:
        args = SFTConfig(output_dir=str(tmp_path / "run"), bf16=False, use_cpu=True, report_to="none", max_length=None)
        KeepSFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, keep=keep)

    small = {"replay_tokens": 64, "drift_rows": 2}
    for attempt in (
        lambda: sample_pool(model, tokenizer, folder, tokens=100, length=POSITIONS + 1),
        lambda: text_pool(model, tokenizer, folder, texts, length=POSITIONS + 1),
        lambda: sample_pool(model, more_tokens(), folder, tokens=100, length=16),
        lambda: text_pool(model, more_tokens(), folder, texts, length=16),
        lambda: sample_pool(model, without_ends(), folder, tokens=100, length=16),
        lambda: train(KeepConfig(lambda_=1.0, replay_length=16, **small)),
        lambda: train(KeepConfig(lambda_=1.0, replay_length=POSITIONS + 1, **small), rows.select([0])),
        lambda: train(KeepConfig(lambda_=1.0, replay_length=16, **small), rows.select([0]), more_tokens()),
    ):
        with pytest.raises(ConfigError, match=r"positions of GPT2|embeds 259|neither a pad_token"):
            attempt()
        assert not folder.exists() and not list(tmp_path.glob("run/replay*"))
    check_sizes(model, tokenizer, POSITIONS)
    train(KeepConfig(lambda_=1.0, replay_length=16, **small), rows.select([0]))
    train(KeepConfig(lambda_=0.0))  # the parent's own affair
