"""An adapter on a base in memory shares its weights, and predicts to the bit what two models in memory predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from keeptune.audit.meter import measure
from keeptune.errors import SourceError
from keeptune.models.adapters import has_adapter, perturbed_adapter, record_base
from keeptune.models.loading import load_model, load_tuned
from keeptune.models.modeling import fingerprint, whole_fingerprint
from tests.helpers.adapters import OPTIONS, TYPES, make_base, make_config
from tests.helpers.models import make_tokenizer

# Adapters that move the base, are no layers, change the head by more than its weight, or have a forward pass of their
# own: two models, or refused, as before.
APART = {
    "init_lora_weights='pissa'", "init_lora_weights='pissa_niter_4'", "init_lora_weights='olora'", "layer_replication",
    "kasa_config", "alora_invocation_tokens", "target_modules: head", "ADALORA", "ADAPTION_PROMPT", "CARTRIDGE", "CPT",
    "MULTITASK_PROMPT_TUNING", "P_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "XLORA", "SHADOW",
}  # fmt: skip
# All of them take half a minute: KEEPTUNE_EVERY_ADAPTER=1 runs them. Here one of each kind of layer.
EVERY = "KEEPTUNE_EVERY_ADAPTER" in os.environ
KINDS = {
    "LORA", "IA3", "OFT", "LN_TUNING", "TRAINABLE_TOKENS", "use_dora", "bias='all'", "modules_to_save: head",
    "modules_to_save: embedding", "target_modules: embedding", "target_parameters", "trainable_token_indices",
    "init_lora_weights='pissa'", "layer_replication", "target_modules: head", "PREFIX_TUNING", "XLORA",
}  # fmt: skip
NAMES = [name for name in (*TYPES, *OPTIONS) if EVERY or name in KINDS]
INPUT_BT = torch.arange(60).view(2, 30)
IDS = [list(range(place, place + 30)) for place in range(3)]
ROWS: Any = [{"input_ids": ids, "labels": ids, "document": str(ids[0])} for ids in IDS]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def saved(base_folder: Path, name: str, folder: Path) -> Path:
    """An adapter with values of its own, on disk."""
    config = make_config(name, folder)
    model = get_peft_model(load_model(str(base_folder)), config)
    with perturbed_adapter(model):
        model.save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in APART])
def test_one_model_predicts_what_two_predict(base_folder: Path, tmp_path: Path, name: str) -> None:
    try:
        adapter = str(saved(base_folder, name, tmp_path))
    except (ValueError, NotImplementedError, ImportError, RuntimeError, TypeError) as error:
        pytest.skip(f"PEFT cannot make it: {error}")
    base = load_model(str(base_folder))
    before, mark = base(input_ids=INPUT_BT).logits, fingerprint(base)
    tuned = load_tuned(adapter, base)
    shared = {id(p) for p in base.parameters()} & {id(p) for p in tuned.parameters()}
    assert len(shared) == len(list(base.parameters()))
    assert has_adapter(tuned)
    assert not has_adapter(base)
    two = PeftModel.from_pretrained(load_model(str(base_folder)), adapter).eval().get_base_model()
    assert torch.equal(tuned(input_ids=INPUT_BT).logits, two(input_ids=INPUT_BT).logits)
    assert torch.equal(base(input_ids=INPUT_BT).logits, before)
    one, apart = measure(base, tuned, ROWS), measure(load_model(str(base_folder)), two, ROWS)
    assert (one.sums_DM == apart.sums_DM).all()
    assert fingerprint(base) == mark == fingerprint(tuned)
    assert whole_fingerprint(tuned) != mark
    assert all(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if name in APART])
def test_the_others_are_loaded_as_a_second_model(base_folder: Path, tmp_path: Path, name: str) -> None:
    try:
        adapter = str(saved(base_folder, name, tmp_path))
    except (ValueError, NotImplementedError, ImportError, RuntimeError, TypeError, KeyError) as error:
        pytest.skip(f"PEFT cannot make it: {error}")
    base = load_model(str(base_folder))
    before = base(input_ids=INPUT_BT).logits
    results: list[Any] = []
    for load in (lambda: load_tuned(adapter, base), lambda: load_model(adapter)):
        try:
            results.append(load()(input_ids=INPUT_BT).logits)
        except SourceError as error:
            results.append(str(error))
    assert type(results[0]) is type(results[1])
    assert torch.equal(*results) if isinstance(results[0], torch.Tensor) else results[0] == results[1]
    assert torch.equal(base(input_ids=INPUT_BT).logits, before)


def test_another_base_is_not_shared(base_folder: Path, tmp_path: Path) -> None:
    """A copy of the base elsewhere, and a base whose weights are others than the adapter was trained on."""
    adapter = str(saved(base_folder, "use_rslora", tmp_path))
    load_model(str(base_folder)).save_pretrained(tmp_path / "copy")
    copied = load_model(str(tmp_path / "copy"))
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in load_tuned(adapter, copied).parameters()}
    record_base(Path(adapter), Path(adapter), "of other weights")
    base = load_model(str(base_folder))
    assert not {id(p) for p in base.parameters()} & {id(p) for p in load_tuned(adapter, base).parameters()}
