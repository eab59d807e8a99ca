"""Models and tokenizers from folders, adapters and GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from keeptune.errors import SourceError, SourceNotFound
from keeptune.models.disk.wheels import cache_folder
from keeptune.models.loading import load_model, load_tokenizer, resolve_model
from keeptune.storage import sha256_file
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer

IDS = torch.tensor([[0, 70, 80, 90, 100, 110]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_a_folder_loads_in_eval_mode_with_its_own_weights(model_folder: Path) -> None:
    loaded = load_model(str(model_folder), attn_implementation="eager")
    assert not loaded.training
    assert loaded.config._attn_implementation == "eager"
    torch.testing.assert_close(logits(loaded), logits(make_model()))
    assert load_model(str(model_folder), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load_tokenizer(str(model_folder)).get_vocab() == make_tokenizer().get_vocab()


def test_loading_leaves_the_librarys_settings_as_they_were(
    model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.enable_progress_bar()
    try:
        before = transformers_logging.get_verbosity()
        load_model(str(model_folder))
        assert capfd.readouterr() == ("", "")
        assert transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == before
    finally:
        transformers_logging.disable_progress_bar()


@pytest.mark.parametrize(
    "source", ["no/such/folder", "../up", "/absent", "a b", "x.gguf", "org/..", "org/a--b", "", "https://x/y"]
)
def test_what_is_neither_a_path_nor_a_hub_id_is_not_found(source: str) -> None:
    with pytest.raises(SourceNotFound):
        resolve_model(source)


def test_a_hub_id_passes_and_is_looked_up_only_when_loaded() -> None:
    assert resolve_model("nobody/nothing-1.5B") == "nobody/nothing-1.5B"
    for load in (load_model, load_tokenizer):
        with pytest.raises(SourceNotFound, match="no model nobody/nothing on the hub") as caught:
            load("nobody/nothing")
        assert "\n" not in caught.value.what


def test_folders_and_files_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"neither config\.json nor adapter_config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"not a \.gguf one"):
        resolve_model(str(tmp_path / "model.bin"))


def test_pickled_weights_are_never_loaded(model_folder: Path) -> None:
    weights = model_folder / "model.safetensors"
    torch.save(load_file(weights), model_folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(SourceError, match="only pickled weights") as caught:
        load_model(str(model_folder))
    assert "convert" in caught.value.fix
    (model_folder / "pytorch_model.bin").unlink()
    with pytest.raises(SourceError, match=r"has no model\.safetensors"):
        load_model(str(model_folder))


def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_at_random(model_folder: Path) -> None:
    weights = load_file(model_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 of its weights, model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(model_folder))


def test_truncated_weights_are_refused(model_folder: Path) -> None:
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(str(model_folder))


def test_code_that_a_model_brings_is_not_run(model_folder: Path, tmp_path: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.M"}}
    (model_folder / "config.json").write_text(json.dumps(config))
    (model_folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(str(model_folder))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def adapter_folder(model_folder: Path, tmp_path: Path) -> Path:
    """An adapter whose effect is large, saved the way PEFT saves it."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(1)
    adapted = get_peft_model(load_model(str(model_folder)), config)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_is_merged_into_its_base(adapter_folder: Path, model_folder: Path) -> None:
    merged = load_model(str(adapter_folder))
    assert type(merged) is LlamaForCausalLM
    assert not merged.training
    stored = load_file(adapter_folder / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    change = stored[f"{prefix}.lora_B.weight"] @ stored[f"{prefix}.lora_A.weight"] * (8 / 2)
    base = make_model().model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(merged.model.layers[0].self_attn.q_proj.weight, base + change)
    assert load_tokenizer(str(adapter_folder)).get_vocab() == load_tokenizer(str(model_folder)).get_vocab()


@pytest.mark.parametrize("base", ["/gone/base", "nobody/nothing", "", None, "adapter itself"])
def test_an_adapter_without_its_base_is_told(adapter_folder: Path, base: str | None) -> None:
    file = adapter_folder / "adapter_config.json"
    named = str(adapter_folder) if base == "adapter itself" else base
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": named}))
    with pytest.raises(SourceError, match="an adapter without its base"):
        load_model(str(adapter_folder))


def test_pickled_adapters_are_never_loaded(adapter_folder: Path) -> None:
    weights = adapter_folder / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter_folder / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(SourceError, match=r"has no adapter_model\.safetensors"):
        load_model(str(adapter_folder))


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """The model and its tokenizer as llama.cpp would hold them, in 32-bit floats."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        # llama.cpp keeps the rotated halves of queries and keys interleaved.
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = tensor.reshape(heads, 2, -1, tensor.shape[1])
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(target, tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_becomes_the_same_model_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["model"]["vocab"]["ab"] = 259
    spec["model"]["merges"] = [["a", "b"]]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))
    model = make_model(vocab=260)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, model, tokenizer)
    # As version 0.2 called it, whose tokenizer and rotary base transformers 4 misreads.
    (cache_folder() / "models" / f"gguf-{sha256_file(path)}").mkdir(parents=True)
    folder = resolve_model(str(path))
    assert capfd.readouterr().err.splitlines() == ["converting tiny.gguf to safetensors, once (about 15 s per 100 MB)"]
    assert Path(folder).is_relative_to(cache_folder())
    torch.testing.assert_close(logits(load_model(folder)), logits(model), rtol=1e-4, atol=1e-5)
    text = "module abc; é 1234 <|im_end|>"
    converted = load_tokenizer(folder)
    assert converted(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert converted.chat_template == CHAT_TEMPLATE
    assert str(tmp_path) not in (Path(folder) / "config.json").read_text()

    path.rename(tmp_path / "renamed.gguf")
    assert resolve_model(str(tmp_path / "renamed.gguf")) == folder
    assert capfd.readouterr().err == ""


def test_a_damaged_gguf_file_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\x00" * 64)
    with pytest.raises(SourceError, match=r"bad\.gguf cannot be loaded"):
        load_model(str(tmp_path / "bad.gguf"))
    assert not list(cache_folder().rglob("*.safetensors"))
