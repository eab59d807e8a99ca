"""A run's folder: what it refuses, what a resume may change, and what a run of an earlier version is."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import TrainerCallback

from keeptune.errors import ConfigError, OutputExists
from keeptune.models.disk.dtypes import checkpoint_dtype
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.quantized import describe
from keeptune.runs.base import dtype_to_save
from keeptune.runs.folder import RUN_FILE, check_folder, claim_folder
from keeptune.runs.run import check_state, tune
from keeptune.runs.settings import TuneSettings
from keeptune.runs.trainer import lora_config
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer
from tests.helpers.quantized import needs_bitsandbytes

DAY = date(2024, 5, 6)


def settings(out: Path, **changed: Any) -> TuneSettings:
    return TuneSettings(model="base", data="text", out=str(out), **changed)


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    run = settings(tmp_path / "run")
    check_folder(tmp_path / "run", run, resume=False, overwrite=False)
    claim_folder(tmp_path / "run", run, resume=False, day=DAY)
    with pytest.raises(OutputExists, match="already contains a run"):
        check_folder(tmp_path / "run", run, resume=False, overwrite=False)
    check_folder(tmp_path / "run", run, resume=True, overwrite=False)
    (tmp_path / "run" / "left over").touch()
    claim_folder(tmp_path / "run", run, resume=False, day=DAY)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [RUN_FILE]


def test_a_resume_may_change_what_has_no_influence_on_the_weights(tmp_path: Path) -> None:
    claim_folder(tmp_path, settings(tmp_path), resume=False, day=DAY)
    bound = settings(tmp_path, stop_if_forecast=("kl=0.1",))
    check_folder(tmp_path, bound, resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="started with another lambda_, seed"):
        check_folder(tmp_path, settings(tmp_path, lambda_=2.0, seed=7), resume=True, overwrite=False)


def test_a_resumed_run_renders_its_chats_with_the_date_of_its_start(tmp_path: Path) -> None:
    """Templates of Llama 3.2, gpt-oss and SmolLM3 write the date into the rows."""
    base, chats = tmp_path / "base", tmp_path / "chats.jsonl"
    make_model().save_pretrained(base)
    make_tokenizer("{{ strftime_now('%d %b %Y %H:%M') }}\n" + CHAT_TEMPLATE).save_pretrained(base)
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    chats.write_text((json.dumps({"messages": turns}) + "\n") * 4)
    run = dataclasses.replace(small(base, tmp_path / "run", max_length=96), data=str(chats))
    seen: list[str] = []

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            rows = kwargs["train_dataloader"].dataset
            seen.append(kwargs["processing_class"].decode(rows[0]["input_ids"]).splitlines()[0])

    claim_folder(tmp_path / "run", run, resume=False, day=DAY)
    tune(run, resume=True, extra_callbacks=[Look()])
    tune(run, overwrite=True, extra_callbacks=[Look()])
    assert seen == ["06 May 2024 00:00", f"{date.today():%d %b %Y} 00:00"]


def test_a_run_of_version_0_1_is_resumed(tmp_path: Path) -> None:
    """It called the settings of drift those of a meter, and had one for FINCH."""
    written = {name.replace("drift_", "meter_"): of for name, of in dataclasses.asdict(settings(tmp_path)).items()}
    content = {"versions": {"keeptune": "0.1.0"}, "settings": {**written, "finch": None}}
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    check_folder(tmp_path, settings(tmp_path), resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="another drift_rows"):
        check_folder(tmp_path, settings(tmp_path, drift_rows=5), resume=True, overwrite=False)


def test_a_run_from_before_documents_ended_in_eos_is_resumed_without(tmp_path: Path) -> None:
    written = dataclasses.asdict(settings(tmp_path))
    del written["append_eos"]
    (tmp_path / RUN_FILE).write_text(json.dumps({"settings": written}))
    with pytest.raises(ConfigError, match="another append_eos"):
        check_folder(tmp_path, settings(tmp_path), resume=True, overwrite=False)
    check_folder(tmp_path, settings(tmp_path, append_eos=False), resume=True, overwrite=False)


def test_the_template_of_a_run_is_saved_with_its_model(model_folder: Path, tmp_path: Path) -> None:
    """Named by file, or one of several by name: what rendered the chats renders them after the run."""
    other = CHAT_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps({"conversations": turns})] * 4))
    (tmp_path / "other.jinja").write_text(other)
    several = make_tokenizer()
    several.chat_template = {"default": CHAT_TEMPLATE, "tight": other}
    several.save_pretrained(model_folder)
    said = [{"role": "user", "content": "hi"}]
    for number, name in enumerate(("tight", str(tmp_path / "other.jinja"))):
        run = TuneSettings(
            model=str(model_folder), data="rows.jsonl", out=str(tmp_path / f"run{number}"), steps=1, batch_size=2,
            lambda_=0.0, chat_template=name, checkpoint_every=0, drift_rows=2, replay_tokens=64, replay_length=8,
        )  # fmt: skip
        folder = tune(run)
        # The names that transformers 4 knows; tests/unit/models/test_saving.py holds all of them.
        assert json.loads((folder / "config.json").read_text())["rope_theta"] == 10000.0
        assert "TokenizersBackend" not in (folder / "tokenizer_config.json").read_text()
        saved = load_tokenizer(str(folder))
        assert saved.apply_chat_template(said, tokenize=False) == "<|im_start|>user\nhi<|im_end|>"


def test_overwriting_keeps_a_pool_that_the_run_needs(tmp_path: Path) -> None:
    claim_folder(tmp_path, settings(tmp_path), resume=False, day=DAY)
    with pytest.raises(ConfigError, match="would delete the replay pool"):
        check_folder(tmp_path, settings(tmp_path, replay=str(tmp_path / "pool")), resume=False, overwrite=True)


def test_the_adapter_is_rank_stabilized_on_every_linear_layer() -> None:
    config: LoraConfig = lora_config(make_model(), 8)
    assert (config.r, config.use_rslora, config.target_modules) == (8, True, "all-linear")


@torch.no_grad()
def task_loss(model: Any, tokenizer: Any, text: str) -> float:
    ids = tokenizer(text, return_tensors="pt").input_ids
    return float(model(input_ids=ids, labels=ids).loss)


def test_a_tuned_adapter_is_the_next_base(model_folder: Path, tmp_path: Path) -> None:
    """The second adapter reloads with both effects, also after everything was moved, and training all weights works."""
    texts = {name: f"This is how {name} says it, again and again. " * 4 for name in ("one", "two")}
    for name, text in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps({'text': text})}\n" * 8)
    small: dict[str, Any] = {
        "steps": 6, "batch_size": 4, "max_length": 48, "drift_rows": 2, "drift_every": 0, "replay_tokens": 32,
        "replay_length": 16, "checkpoint_every": 0, "lambda_": 0.01, "learning_rate": 3e-2,
    }  # fmt: skip
    bases = {"one": str(model_folder), "two": str(tmp_path / "one" / "model"), "all": str(tmp_path / "two" / "model")}
    for name, base in bases.items():
        adapter = {"lora": 8} if name != "all" else {"learning_rate": 1e-3}
        data = str(tmp_path / f"{'two' if name == 'all' else name}.jsonl")
        tune(TuneSettings(model=base, data=data, out=str(tmp_path / name), **{**small, **adapter}))
    tokenizer = make_tokenizer()
    loss = {name: task_loss(load_model(str(tmp_path / name / "model")), tokenizer, texts["one"]) for name in bases}
    plain = task_loss(load_model(str(model_folder)), tokenizer, texts["one"])
    assert loss["one"] < plain - 1 and loss["two"] < plain - 1, "the first adapter's effect is in the second"
    second = tmp_path / "two"
    card = (second / "model" / "README.md").read_text()
    assert f"merged and saved as `{second / 'base'}`" in card
    assert "base_model" not in card, "a folder is no id of the Hub"
    assert not (tmp_path / "one" / "base").exists() and not (tmp_path / "all" / "base").exists()
    second.rename(tmp_path / "moved")
    moved = load_model(str(tmp_path / "moved" / "model"))
    assert task_loss(moved, tokenizer, texts["one"]) == pytest.approx(loss["two"])


def small(base: Path, out: Path, **changed: Any) -> TuneSettings:
    for number in range(6):
        (base.parent / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    shape = {"steps": 1, "batch_size": 2, "max_length": 32, "drift_rows": 4, "replay_tokens": 128, "replay_length": 16}
    return TuneSettings(model=str(base), data=str(base.parent / "*.txt"), out=str(out), **{**shape, **changed})


@pytest.mark.parametrize(
    ("changed", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"save_dtype": "float32"}, torch.float32),
        ({"lora": 2, "save_dtype": "bfloat16"}, torch.bfloat16),
    ],
)
def test_a_model_is_saved_in_the_dtype_it_came_in(tmp_path: Path, changed: dict[str, Any], dtype: torch.dtype) -> None:
    make_model().bfloat16().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    folder = tune(small(tmp_path / "base", tmp_path / "run", **changed))
    (weights,) = folder.glob("*.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {dtype}
    assert f"Saved in {str(dtype).removeprefix('torch.')}." in (folder / "README.md").read_text()
    load_model(str(folder))


def test_float32_weights_are_saved_as_ever(model_folder: Path) -> None:
    run = TuneSettings(model=str(model_folder), data="text", out="out")
    assert dtype_to_save(run) == checkpoint_dtype(str(model_folder)) == torch.float32
    assert dtype_to_save(dataclasses.replace(run, lora=4)) is None


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_base_is_quantized_while_it_is_loaded(model_folder: Path, tmp_path: Path, bits: str) -> None:
    folder = tune(small(model_folder, tmp_path / "run", lora=2, **{f"load_in_{bits}": True}))
    rows = [json.loads(line) for line in (tmp_path / "run" / "runs.jsonl").read_text().splitlines()]
    assert rows[0]["KL"] == 0.0
    card = (folder / "README.md").read_text()
    assert f"Trained on the base quantized with bitsandbytes {bits[0]}-bit" in card
    again = describe(load_model(str(folder)))
    assert again is not None
    assert again.startswith(f"bitsandbytes {bits[0]}-bit"), "the adapter's base is loaded as it was trained on"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"load_in_4bit": True}, "quantized weights cannot be trained"),
        ({"load_in_4bit": True, "load_in_8bit": True, "lora": 2}, "are both set"),
    ],
)
def test_settings_that_quantize_what_is_trained_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(Path("out"), **changed)


@needs_bitsandbytes
def test_a_quantized_folder_is_refused_where_its_weights_would_be_trained(model_folder: Path, tmp_path: Path) -> None:
    quantized, tuned = tmp_path / "quantized", tmp_path / "tuned"
    base = load_model(str(model_folder), load_in="8bit")
    base.save_pretrained(quantized)
    make_tokenizer().save_pretrained(quantized)
    with pytest.raises(ConfigError, match=r"quantized \(bitsandbytes 8-bit\).* cannot be trained"):
        tune(small(quantized, tmp_path / "run"))
    base = load_model(str(quantized))
    get_peft_model(base, lora_config(base, 2)).save_pretrained(tuned)
    with pytest.raises(ConfigError, match="an adapter on a quantized base"):
        tune(small(tuned, tmp_path / "run", lora=2))


def test_a_checkpoint_without_its_optimizer_is_not_resumed(model_folder: Path, tmp_path: Path) -> None:
    run = small(model_folder, tmp_path / "run", steps=2, checkpoint_every=1, sft={"save_only_model": True})

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(run, extra_callbacks=[Kill()])
    with pytest.raises(ConfigError, match="holds no optimizer and no schedule and no random states"):
        tune(run, resume=True)
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).touch()
    check_state(checkpoint)
