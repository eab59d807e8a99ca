"""The dtype of a checkpoint is read from its weights, and a saved model takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from keeptune.models.disk.dtypes import checkpoint_dtype, recast
from keeptune.models.loading import load_model, stored_dtype
from tests.helpers.models import make_model

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def saved(folder: Path, dtype: torch.dtype, shard: str = "5GB", tie: bool = True) -> Path:
    make_model(tie=tie).to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shard", ["5GB", "40kB"])
def test_a_checkpoint_has_the_dtype_of_its_weights(tmp_path: Path, dtype: torch.dtype, shard: str) -> None:
    folder = saved(tmp_path / "base", dtype, shard)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float64"}))
    assert checkpoint_dtype(str(folder)) == stored_dtype(str(folder)) == dtype
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(tmp_path / "adapter")
    assert stored_dtype(str(tmp_path / "adapter")) == dtype, "an adapter has that of its base"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shard", "tie"), [("5GB", True), ("80kB", False)])
def test_a_saved_model_is_cast_and_stays_the_same_model(
    tmp_path: Path, dtype: torch.dtype, shard: str, tie: bool
) -> None:
    folder, model = saved(tmp_path, torch.float32, shard, tie), make_model(tie=tie)
    names = {file.name for file in folder.iterdir()}
    assert recast(folder, dtype) == checkpoint_dtype(str(folder)) == dtype
    assert {file.name for file in folder.iterdir()} == names
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    loaded = load_model(str(folder)).state_dict()
    assert all(torch.equal(loaded[name], value.to(dtype).float()) for name, value in model.state_dict().items())
    for index in folder.glob("*.index.json"):
        size = json.loads(index.read_text())["metadata"]["total_size"]
        assert size == sum(value.nbytes for file in folder.glob("*.safetensors") for value in load_file(file).values())


def test_what_float16_cannot_hold_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    model.model.norm.weight.data[0] = 70_000.0
    model.save_pretrained(tmp_path)
    assert recast(tmp_path, torch.float16) == torch.float32
    assert "too large for torch.float16: the model is saved in torch.float32" in caplog.text
    assert recast(tmp_path, None) == torch.float32
    assert recast(tmp_path, torch.bfloat16) == torch.bfloat16
