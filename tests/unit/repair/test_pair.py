"""Two models as one with what differs, and every pair that is none: refused in words before any text is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from keeptune.errors import KeeptuneError
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint
from keeptune.repair.change import state_of
from keeptune.repair.pair import check_names, load_pair
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.repair import moved, save, save_lora
from tests.unit.repair.conftest import Models

Make = Callable[[Models, Path], tuple[Path, Path]]


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def same_folder(models: Models, home: Path) -> tuple[Path, Path]:
    return models.base, models.base


def same_weights(models: Models, home: Path) -> tuple[Path, Path]:
    return models.base, copied(models.base, home / "copy")


def other_seed(models: Models, home: Path) -> tuple[Path, Path]:
    return models.base, save(make_model(seed=7, width=16), home / "other")


def other_width(models: Models, home: Path) -> tuple[Path, Path]:
    return models.base, save(make_model(width=32), home / "other")


def other_class(models: Models, home: Path) -> tuple[Path, Path]:
    config = GPT2Config(vocab_size=259, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return models.base, save(GPT2LMHeadModel(config), home / "other")


def more_tokens(models: Models, home: Path) -> tuple[Path, Path]:
    model = moved(make_model(width=16))
    model.resize_token_embeddings(264)
    return models.base, save(model, home / "other")


def other_tokens(models: Models, home: Path) -> tuple[Path, Path]:
    folder = copied(models.tuned, home / "other")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    return models.base, folder


def other_positions(models: Models, home: Path) -> tuple[Path, Path]:
    folder = copied(models.tuned, home / "other")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 77.0
    (folder / "config.json").write_text(json.dumps(config))
    return models.base, folder


def not_finite(models: Models, home: Path) -> tuple[Path, Path]:
    folder = copied(models.tuned, home / "other")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return models.base, folder


def lora_of_another(models: Models, home: Path) -> tuple[Path, Path]:
    other = save(make_model(seed=7, width=16), home / "other")
    return models.base, save_lora(other, home / "lora")


def no_such_model(models: Models, home: Path) -> tuple[Path, Path]:
    return models.base, home / "nothing"


def encoder(models: Models, home: Path) -> tuple[Path, Path]:
    folder = copied(models.tuned, home / "other")
    (folder / "model.safetensors").unlink()
    return models.base, folder


REFUSED: list[tuple[Make, str]] = [
    (same_folder, "are the same model, so nothing was forgotten"),
    (same_weights, "nothing to repair"),
    (other_seed, "was not tuned from .*: the cosine of their weights is"),
    (other_width, "has other tensors than .*is .* in the base and .* in the tuned"),
    (other_class, "is a GPT2LMHeadModel and .* a LlamaForCausalLM"),
    (more_tokens, "predicts 264 tokens and .* 259"),
    (other_tokens, "has another vocabulary than .*: 2 tokens differ"),
    (other_positions, "computes other predictions from the base's weights"),
    (not_finite, "model.norm.weight of .* has NaN or infinite values"),
    (lora_of_another, "is an adapter on .*other, which is not"),
    (no_such_model, "no model at"),
    (encoder, "has no model.safetensors"),
]


@pytest.mark.parametrize(("make", "what"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_pair_that_cannot_be_repaired_is_refused_in_words(
    models: Models, tmp_path: Path, make: Make, what: str
) -> None:
    base, tuned = make(models, tmp_path)
    with pytest.raises(KeeptuneError, match=what) as refused:
        load_pair(check_names(str(base), str(tuned)), tmp_path / "cache", torch.device("cpu"))
    assert refused.value.fix


@pytest.mark.parametrize("kind", ["tuned", "lora"])
def test_the_pair_is_the_tuned_model_and_holds_the_base(models: Models, tmp_path: Path, kind: str) -> None:
    tuned = str(getattr(models, kind))
    pair = load_pair(check_names(str(models.base), tuned), tmp_path, torch.device("cpu"))
    after = state_of(load_model(tuned))
    assert all(torch.equal(tensor, after[name]) for name, tensor in state_of(pair.model).items())
    assert pair.base_mark == fingerprint(make_model(width=16))
    assert Path(pair.base_name) == models.base
    assert len(pair.change.names) == (20 if kind == "tuned" else 4)
    pair.change.place_base()
    assert fingerprint(pair.model) == pair.base_mark


def test_tokens_that_one_tokenizer_alone_names_do_no_harm(models: Models, tmp_path: Path) -> None:
    base = make_model(width=16, vocab=264)
    base.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    moved(base).save_pretrained(tmp_path / "tuned")
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    tokenizer.save_pretrained(tmp_path / "tuned")
    names = check_names(str(tmp_path / "base"), str(tmp_path / "tuned"))
    assert load_pair(names, tmp_path / "cache", torch.device("cpu")).change.names
