"""Whether a base is the model saved under its name, and finding it where it was moved with its adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from keeptune.errors import SourceError
from keeptune.models.adapters import differs_from_disk, named_base, record_base, save_base
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint
from tests.helpers.models import make_model, make_tokenizer


def adapted(model: Any) -> Any:
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_base_is_compared_with_the_model_of_its_name(tmp_path: Path, dtype: torch.dtype, shard: str) -> None:
    make_model().to(dtype).save_pretrained(tmp_path / "base", max_shard_size=shard)
    model = load_model(str(tmp_path / "base"))
    assert differs_from_disk(adapted(model), str(tmp_path / "base")) is None
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
    assert "up_proj" in str(differs_from_disk(model, str(tmp_path / "base")))
    resized = load_model(str(tmp_path / "base"))
    resized.resize_token_embeddings(263)
    assert "embed_tokens" in str(differs_from_disk(resized, str(tmp_path / "base")))


def test_an_adapter_is_no_base_and_what_is_nowhere_is_not_compared(tmp_path: Path) -> None:
    adapted(make_model()).save_pretrained(tmp_path / "adapter")
    assert differs_from_disk(make_model(), str(tmp_path / "adapter")) == "it is an adapter"
    assert differs_from_disk(make_model(), "nobody/nothing") is None


def test_the_base_inside_an_adapter_is_saved_without_it(tmp_path: Path) -> None:
    save_base(adapted(make_model()), make_tokenizer(), tmp_path / "base")
    assert fingerprint(load_model(str(tmp_path / "base"))) == fingerprint(make_model())


def test_a_base_is_found_where_it_was_moved_with_its_adapter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "here" / "run" / "model"
    make_model().save_pretrained(tmp_path / "here" / "base")
    model = adapted(load_model(str(tmp_path / "here" / "base")))
    model.save_pretrained(home)
    record_base(home, home, fingerprint(make_model()))
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "run" / "model"
    named = json.loads((moved / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(tmp_path / "here" / "base")
    assert named_base(str(moved), named)[0] == str(tmp_path / "there" / "base")
    merged = load_model(str(moved))
    assert "is gone: using" in caplog.text and "other weights" not in caplog.text
    ids = torch.arange(12)[None]
    torch.testing.assert_close(merged(ids).logits, model.eval()(ids).logits)
    make_model(seed=1).save_pretrained(tmp_path / "there" / "base")
    load_model(str(moved))
    assert "has other weights than the base" in caplog.text


def test_a_hub_id_stays_one(tmp_path: Path) -> None:
    model = make_model()
    model.name_or_path = "org/name"
    adapted(model).save_pretrained(tmp_path / "adapter")
    record_base(tmp_path / "adapter", tmp_path / "adapter", "mark")
    assert named_base(str(tmp_path / "adapter"), "org/name") == ("org/name", "mark")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{", "not JSON"),
        ("[]", "the whole"),
        ("{}", "base"),
        ('{"base": 3, "relative": null, "fingerprint": null}', "base"),
        ('{"base": "b", "relative": ["x"], "fingerprint": null}', "relative"),
        ('{"base": "b", "relative": null, "fingerprint": {}}', "fingerprint"),
    ],
)
def test_a_damaged_record_of_the_base_names_its_file_and_field(tmp_path: Path, content: str, field: str) -> None:
    (tmp_path / "base.json").write_text(content)
    with pytest.raises(SourceError, match=rf"base\.json is damaged: .*{field}") as error:
        named_base(str(tmp_path), "b")
    assert "delete" in error.value.fix
