"""A merged model gives the logits of base and adapter apart, or is refused with the reason."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from keeptune.errors import ConfigError, SourceError
from keeptune.models.adapters import merging
from keeptune.models.adapters.merging import check_read_back
from keeptune.models.loading import load_model
from keeptune.models.lora_targets import all_linear
from tests.families import harness
from tests.families.catalog import FAMILIES
from tests.helpers.adapters import make_base, make_config, moved
from tests.helpers.models import make_model, make_tokenizer

INPUT_BT = torch.arange(3, 27).view(2, 12)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=INPUT_BT).logits
    return found


def saved(folder: Path, config: Any, base: Any = None, scale: float = 0.1) -> tuple[Path, torch.Tensor]:
    """A trained adapter in a folder, beside its base, and its logits."""
    base = base or make_base()
    base.save_pretrained(folder / "base")
    model = moved(get_peft_model(type(base).from_pretrained(folder / "base"), config).eval(), scale)
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", logits(model)


@pytest.mark.parametrize(
    "name",
    [
        "target_modules: embedding", "target_modules: head", "modules_to_save: embedding", "modules_to_save: head",
        "ensure_weight_tying", "trainable_token_indices", "layer_replication", "TRAINABLE_TOKENS", "bias='all'",
        "use_dora", "init_lora_weights='pissa'", "kasa_config",
    ],
)  # fmt: skip
@pytest.mark.parametrize("tie", [True, False])
def test_what_shares_weights_is_merged_exactly_and_saved_so(tmp_path: Path, name: str, tie: bool) -> None:
    folder, expected = saved(tmp_path, make_config(name, tmp_path), make_base(tie=tie))
    merged = load_model(str(folder))
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(str(tmp_path / "merged"))), logits(merged))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PROMPT_TUNING", "it is no change of weights"),
        ("P_TUNING", "it is no change of weights"),
        ("PREFIX_TUNING", "it is no change of weights"),
        ("ADAPTION_PROMPT", "it is no change of weights"),
        ("LILY", "not supported for Lily"),
        ("SHADOW", "cannot be merged"),
        ("alora_invocation_tokens", "does not support merging"),
        ("init_lora_weights='pissa_niter_4'", "loading cannot move the same weights again"),
    ],
)
def test_what_cannot_be_merged_is_refused_with_its_reason(tmp_path: Path, name: str, reason: str) -> None:
    folder, _ = saved(tmp_path, make_config(name, tmp_path))
    with pytest.raises(SourceError, match=reason) as refused:
        load_model(str(folder))
    assert refused.value.fix


def test_a_merge_that_changes_the_predictions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = saved(tmp_path, make_config("target_modules: embedding", tmp_path))
    monkeypatch.setattr(merging, "_unshare", lambda model: None)  # as PEFT alone merges it
    with pytest.raises(SourceError, match=r"changes the logits by .* of their norm \(expected below 0.001\)"):
        load_model(str(folder))


def test_warnings_of_peft_reach_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = saved(tmp_path, make_config("target_modules: embedding", tmp_path))
    load_model(str(folder))
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert any("`ensure_weight_tying` is not set to True" in message for message in warned)


def test_an_embedding_resized_under_the_adapter_is_resized_in_the_base(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    base.resize_token_embeddings(263)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, config).eval()
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(load_model(str(tmp_path / "adapter"))), expected)


def test_a_merged_adapter_reloads_in_peft_too(tmp_path: Path) -> None:
    folder, expected = saved(tmp_path, make_config("LORA", tmp_path))
    again = PeftModel.from_pretrained(load_model(str(tmp_path / "base")), str(folder)).eval()
    torch.testing.assert_close(logits(again), expected)


@pytest.mark.parametrize(("family", "lost"), [("laguna", 6), ("llama", 0)])
def test_an_adapter_that_peft_does_not_read_back_is_refused(family: str, lost: int, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    base = load_model(str(harness.make_base(FAMILIES[family], folder)))
    adapted = get_peft_model(base, all_linear(base, r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=f"does not read {lost} tensors") if lost else nullcontext():
        check_read_back(adapted)
    with pytest.raises(SourceError, match=r"does not read \d+ tensors") if lost else nullcontext():
        load_model(str(tmp_path / "adapter"))
