"""Which model a run holds on to, and why a model or an adapter is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trl import SFTTrainer

from keeptune.errors import PoolMismatch, UnsupportedModel
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint
from keeptune.replay.generate import sample_pool
from keeptune.train.base import Given, Where, given_model, identify_base, require_language_model
from keeptune.train.config import KeepConfig
from keeptune.train.drift import read_drift
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.adapters import OPTIONS, make_base, make_config, moved
from tests.helpers.models import make_tokenizer
from tests.helpers.training import config, largest_gap, task_rows, trained

INPUT_BT = torch.arange(3, 27).view(2, 12)
SMALL: dict[str, Any] = {"replay_tokens": 8 * 16, "replay_length": 16, "drift_rows": 2, "drift_every": 1}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=INPUT_BT).logits
    return found


def trainer(model: Any, out: Path, kind: Any = KeepSFTTrainer, lambda_: float = 1.0, **settings: Any) -> Any:
    keep = {} if kind is SFTTrainer else {"keep": KeepConfig(lambda_=lambda_, **SMALL)}
    given = {"processing_class": make_tokenizer(), **settings}
    return kind(model=model, args=config(out, max_steps=2), train_dataset=task_rows(), **keep, **given)


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("LORA", Where.ADAPTER_OFF, None),
        ("PROMPT_TUNING", Where.ADAPTER_OFF, None),
        ("VBLORA", Where.ADAPTER_OFF, None),
        ("init_lora_weights=False", Where.ADAPTER_OFF, None),
        ("bias='all'", Where.ADAPTER_OFF, "bias' of the base is trainable"),
        ("init_lora_weights='pissa'", Where.ADAPTER_ON, "'pissa' moves weights of the base into the adapter"),
        ("init_lora_weights='olora'", Where.ADAPTER_ON, "'olora' moves weights of the base into the adapter"),
        ("kasa_config", Where.NOWHERE, "kasa_config takes part of the base's weights away"),
        ("layer_replication", Where.NOWHERE, "replicates layers of the base"),
    ],
)
def test_the_base_is_found_by_measuring(name: str, where: Where, reason: str | None, tmp_path: Path) -> None:
    model = make_base()
    given = given_model(model, adapts=True)
    base = identify_base(get_peft_model(model, make_config(name, tmp_path)), given)
    assert base.where is where
    assert base.fingerprint == fingerprint(make_base())
    assert (base.mismatch is None) == (reason is None) and (reason or "") in (base.mismatch or "")


@pytest.mark.parametrize(
    ("name", "train", "where"),
    [
        ("LORA", False, Where.ADAPTER_OFF),
        ("LORA", True, Where.ADAPTER_OFF),
        ("PREFIX_TUNING", True, Where.ADAPTER_OFF),
        ("init_lora_weights='pissa'", False, Where.NOWHERE),
    ],
)
def test_of_a_model_that_comes_with_its_adapter_the_configuration_tells(
    name: str, train: bool, where: Where, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = get_peft_model(make_base(), make_config(name, tmp_path))
    model = moved(model) if train else model
    for given in (given_model(model, adapts=False), Given()):
        base = identify_base(model, given)
        assert base.where is where
        assert (base.fingerprint == fingerprint(make_base())) == (where is Where.ADAPTER_OFF)
        assert base.starts_apart == (train or where is Where.NOWHERE)
    assert ("changes the predictions before the first step" in caplog.text) == train


def test_a_trained_adapter_is_held_to_the_model_without_it(tmp_path: Path) -> None:
    run = trainer(moved(get_peft_model(make_base(), make_config("LORA", tmp_path))), tmp_path / "run")
    inputs_BT = run.context.drift_rows.inputs_BP
    run.model.eval()
    with torch.no_grad():
        reading = read_drift(run.context, run.context.drift_rows)["kl"]
        tuned, own = (model(input_ids=inputs_BT).logits.log_softmax(-1) for model in (run.model, make_base()))
    assert reading == pytest.approx(float((own.exp() * (own - tuned)).sum(-1).mean()), abs=1e-5) and reading > 0.01


def test_what_cannot_be_kept_is_refused_and_trained_at_lambda_0(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "kasa_config"
    with pytest.raises(UnsupportedModel, match="cannot reach the base in this model"):
        trainer(make_base(), tmp_path / "kept", peft_config=make_config(name, tmp_path))
    parent = trained(trainer(make_base(), tmp_path / "a", SFTTrainer, peft_config=make_config(name, tmp_path)))
    plain = trainer(make_base(), tmp_path / "b", lambda_=0.0, peft_config=make_config(name, tmp_path))
    assert "no drift is read in this run" in caplog.text
    assert largest_gap(parent, trained(plain)) == 0.0
    pool = sample_pool(make_base(), make_tokenizer(), tmp_path / "pool", tokens=128, length=16, dtype=torch.float32)
    keep = KeepConfig(replay=pool, drift_rows=2, drift_every=1)
    KeepSFTTrainer(
        model=make_base(), args=config(tmp_path / "c", max_steps=1), keep=keep, train_dataset=task_rows(),
        processing_class=make_tokenizer(), peft_config=make_config(name, tmp_path),
    ).train()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MULTITASK_PROMPT_TUNING", "predicts from more than the tokens: task_ids"),
        ("POLY", "predicts from more than the tokens: task_ids"),
        ("target_modules: head", "changes the output layer by more than its weight"),
    ],
)
def test_an_adapter_whose_predictions_cannot_be_computed_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    model = get_peft_model(make_base(), make_config(name, tmp_path))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UnsupportedModel, match=reason):
        require_language_model(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_pool_of_the_model_before_it_was_resized_is_refused_with_what_changed(tmp_path: Path) -> None:
    pool = sample_pool(make_base(), make_tokenizer(), tmp_path / "pool", tokens=128, length=16, dtype=torch.float32)
    template = make_tokenizer(chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    template.add_tokens(["<new>", "<newer>"])
    template.save_pretrained(tmp_path / "template")
    arguments: dict[str, Any] = {
        "args": config(tmp_path / "run", max_steps=1, chat_template_path=str(tmp_path / "template")),
        "train_dataset": task_rows(), "processing_class": make_tokenizer(),
    }  # fmt: skip
    run = KeepSFTTrainer(model=make_base(), keep=KeepConfig(**SMALL), **arguments)
    assert run.context is not None and run.context.base == fingerprint(run.model) != fingerprint(make_base())
    run.train()
    assert abs(read_rows(tmp_path / "run" / "runs.jsonl")[0]["KL"]) < 1e-6
    with pytest.raises(PoolMismatch, match=r"the trainer changed the model: .*resized from \[259, 32\] to"):
        KeepSFTTrainer(model=make_base(), keep=KeepConfig(replay=pool, drift_rows=2), **arguments)


def merged_by_hand(folder: Path) -> Any:
    model = PeftModel.from_pretrained(load_model(str(folder / "base")), str(folder / "one"))
    return model.merge_and_unload()


@pytest.mark.parametrize("form", ["the adapter's name", "loaded with keeptune", "merged by hand"])
def test_a_second_adapter_reloads_with_the_first_ones_effect(form: str, tmp_path: Path) -> None:
    make_base().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    adapter = make_config("init_lora_weights=False", tmp_path)
    get_peft_model(load_model(str(tmp_path / "base")), adapter).save_pretrained(tmp_path / "one")
    model: Any = {
        "the adapter's name": lambda: str(tmp_path / "one"),
        "loaded with keeptune": lambda: load_model(str(tmp_path / "one")),
        "merged by hand": lambda: merged_by_hand(tmp_path),
    }[form]()
    run = trainer(model, tmp_path / "run", peft_config=adapter)
    run.save_model(str(tmp_path / "two"))
    named = json.loads((tmp_path / "two" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(tmp_path / "run" / "base")
    torch.testing.assert_close(logits(load_model(str(tmp_path / "two"))), logits(run.model), atol=1e-5, rtol=1e-5)
    assert run.context.base == fingerprint(merged_by_hand(tmp_path))


@pytest.mark.parametrize("relative", [True, False])
def test_an_adapter_names_its_base_by_a_whole_path_and_nothing_is_saved_twice(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_base().save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = "base" if relative else str(tmp_path / "base")
    run = trainer(model, tmp_path / "run", peft_config=make_config("LORA", tmp_path))
    run.save_model(str(tmp_path / "one"))
    named = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(tmp_path / "base")
    assert not (tmp_path / "run" / "base").exists()


def test_an_initialization_by_chance_is_saved_so_that_it_reloads(tmp_path: Path) -> None:
    make_base().save_pretrained(tmp_path / "base")
    settings = OPTIONS["init_lora_weights='pissa_niter_4'"]
    adapter = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)
    run = trainer(load_model(str(tmp_path / "base")), tmp_path / "run", peft_config=adapter)
    moved(run.model)
    run.save_model(str(tmp_path / "one"))
    torch.testing.assert_close(logits(load_model(str(tmp_path / "one"))), logits(run.model), atol=1e-5, rtol=1e-5)
