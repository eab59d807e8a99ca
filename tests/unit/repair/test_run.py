"""The whole flow on tiny models: the answers, what is saved, and what a second command goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from keeptune.errors import ConfigError, Interrupted, OutputExists
from keeptune.models.adapters import next_token_logits
from keeptune.models.loading import is_adapter, load_model
from keeptune.models.quantized import BASE_QUANTIZATION, loading_quantization
from keeptune.repair.outcome import Answer
from keeptune.repair.reading import Reader
from keeptune.repair.run import repair
from keeptune.repair.settings import RepairSettings
from keeptune.storage import write_json
from keeptune.train.budget.certificate import read_certificate
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.quantized import needs_bitsandbytes
from tests.helpers.repair import learned, save
from tests.unit.repair.conftest import Models


class Repaired(NamedTuple):
    """A finished repair by every method, which was interrupted once."""

    settings: RepairSettings
    result: dict[str, Any]
    read: int
    """Readings on the choosing rows that it took."""
    readings: list[int]
    """One for each reading, of this repair and of all after it."""

    @property
    def out(self) -> Path:
        return Path(self.settings.out)


@pytest.fixture(scope="module")
def repaired(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repaired]:
    read, readings = Reader.choosing, list[int]()

    def counted(self: Reader) -> Any:
        readings.append(len(readings))
        if len(readings) == 4:
            raise Interrupted("stopped", "run it again")
        return read(self)

    methods = ["interpolate", "groups", "trim", "dare", "svd", "tune"]
    settings = models.settings(tmp_path_factory.mktemp("run") / "out", budget=0.02, method=methods)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "choosing", counted)
        with pytest.raises(Interrupted):
            repair(settings)
        result = repair(settings)
        yield Repaired(settings, result, len(readings), readings)


def test_a_repair_that_reaches_its_budget(repaired: Repaired) -> None:
    result, settings, out = repaired.result, repaired.settings, repaired.out
    assert result["answer"] is Answer.REPAIRED
    assert result["certificate"]["verdict"] == "kept" and result["certificate"]["kl"]["high"] <= 0.02
    assert result["certificate"]["kl"]["documents"] == settings.certificate_rows
    assert {point["method"] for point in result["frontier"]} == set(settings.methods)
    within = [point for point in result["frontier"] if point["kl"]["high"] <= result["limit"]]
    assert {point["method"] for point in within} == set(settings.methods), "each method was searched to the budget"
    best = min(within, key=lambda point: point["lost"]["value"])
    assert (best["method"], best["strength"]) == (result["chosen"]["method"], result["chosen"]["strength"])
    assert read_certificate(out).kl.as_dict() == result["certificate"]["kl"]
    assert json.loads((out / "repair.json").read_text())["command"]
    card = (out / "model" / "README.md").read_text()
    assert "Repaired within the budget" in card and f"{result['chosen']['kl']['value']:.4f}" in card
    assert "<svg" in (out / "report.html").read_text()
    assert not list((out / "cache").glob("base*")), "the weights of both ends are not left"


def test_the_saved_model_is_the_one_that_was_certified(models: Models, repaired: Repaired) -> None:
    base, tuned, saved = (load_model(str(of)) for of in (models.base, models.tuned, repaired.out / "model"))
    near = (next_token_logits(saved) - next_token_logits(base)).norm()
    assert 0 < near < (next_token_logits(tuned) - next_token_logits(base)).norm()
    out = str(repaired.out.parent / "again")
    again = repair(replace(repaired.settings, tuned=str(repaired.out / "model"), out=out, budget=5.0))
    # Its fresh rows are the base's, with the same seed: the same certificate but for the budget.
    assert again["certificate"]["kl"] == repaired.result["certificate"]["kl"]


def test_what_was_read_is_not_read_again(repaired: Repaired) -> None:
    assert repaired.read == len(repaired.result["frontier"]) + 2 + 1, "the interrupted one, and both ends"
    read = len(repaired.readings)
    again = repair(repaired.settings)
    assert len(repaired.readings) == read
    same = ("answer", "certificate", "frontier", "chosen")
    assert {name: again[name] for name in same} == {name: repaired.result[name] for name in same}
    other = repair(replace(repaired.settings, budget=0.01, method=["interpolate"]))
    assert len(repaired.readings) - read < len(other["frontier"])


def test_a_model_within_the_budget_needs_no_repair(repaired: Repaired) -> None:
    result = repair(replace(repaired.settings, budget=5.0))
    assert result["answer"] is Answer.NOTHING and result["chosen"] is None and result["frontier"] == []
    assert result["certificate"]["verdict"] == "kept"


@pytest.mark.parametrize("most_lost", [0.3, 0.0])
def test_a_budget_out_of_reach_gives_the_nearest(repaired: Repaired, most_lost: float) -> None:
    result = repair(replace(repaired.settings, budget=1e-6, most_lost=most_lost, method=["interpolate"]))
    assert result["answer"] is Answer.NOT_REACHABLE
    if most_lost == 0.0:
        assert result["chosen"] is None
        return
    assert result["chosen"]["kl"]["value"] < result["tuned"]["kl"]["value"]
    of = {point["strength"]: point["lost"]["value"] for point in result["frontier"]}
    assert 0.8 * most_lost < of[result["chosen"]["strength"]] <= most_lost, "searched up to what may be lost"
    assert "The budget was not reached" in (repaired.out / "model" / "README.md").read_text()


def test_a_folder_of_other_work_or_settings_is_refused(models: Models, repaired: Repaired) -> None:
    with pytest.raises(OutputExists, match="a repair with other settings"):
        repair(replace(repaired.settings, rows=13))
    with pytest.raises(OutputExists, match="holds no repair"):
        repair(models.settings(models.base))


def test_an_adapter_stays_one_where_that_is_exact(models: Models, tmp_path: Path) -> None:
    settings = models.settings(tmp_path / "out", models.lora, budget=0.004, most_lost=1.0)
    result = repair(settings)
    assert result["chosen"]["saved"] == "a LoRA of rank 2 on the base"
    folder = str(tmp_path / "out" / "model")
    base, lora, saved = (load_model(str(of)) for of in (models.base, models.lora, folder))
    strength = result["chosen"]["strength"]
    for (name, own), before, after in zip(saved.named_parameters(), base.parameters(), lora.parameters(), strict=True):
        assert torch.allclose(own, torch.lerp(before, after, strength), atol=1e-6), name
    trimmed = repair(replace(settings, method=["dare"]))["chosen"]["saved"]
    assert trimmed.startswith("all weights, in float32; no adapter would be exact: its change has a rank of up to")
    assert not is_adapter(folder)


@needs_bitsandbytes
def test_a_lora_on_a_quantized_base_is_repaired_beside_it(tmp_path: Path) -> None:
    base = save(make_model(width=64), tmp_path / "base")
    quantized = load_model(str(base), load_in="4bit")
    how = loading_quantization(quantized)
    adapted = get_peft_model(quantized, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.15 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "lora")
    make_tokenizer().save_pretrained(tmp_path / "lora")
    write_json(tmp_path / "lora" / BASE_QUANTIZATION, how)
    models = Models(base=base, tuned=tmp_path / "lora", lora=tmp_path / "lora")
    result = repair(models.settings(tmp_path / "out", method=["interpolate", "trim", "tune"], most_lost=1.0))
    assert result["chosen"]["saved"] == "a LoRA of rank 2 on the quantized base"
    assert "only the adapter's strength" in result["left_out"]["trim"]
    assert 0 < result["chosen"]["kl"]["value"] < result["tuned"]["kl"]["value"]
    file = "adapter_model.safetensors"
    before, after = load_file(tmp_path / "lora" / file), load_file(tmp_path / "out" / "model" / file)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) is ("lora_A" in name) for name in before)
    assert load_model(str(tmp_path / "out" / "model")).is_quantized


def texts(numbers: range) -> list[str]:
    return [f"Text {number} is about the number {number}; and so on, and on." for number in numbers]


def as_rows(file: Path, lines: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return str(file)


def test_with_a_task_learning_is_its_loss_on_documents_apart(models: Models, tmp_path: Path) -> None:
    tuned = save(learned(make_model(width=16), texts(range(10, 30))), tmp_path / "tuned")
    task = as_rows(tmp_path / "task.jsonl", texts(range(30, 70)))
    methods = ["interpolate", "tune"]
    result = repair(models.settings(tmp_path / "out", tuned, task_text=task, method=methods, budget=0.1))
    chosen = result["chosen"]
    assert result["learning_read_on"] == task
    assert chosen["lost"]["value"] < 0.5 and chosen["kl"]["value"] < result["tuned"]["kl"]["value"]
    assert 0 < result["tuned"]["task_loss"]["value"] < chosen["task_loss"]["value"]
    held_out = set(chosen["rows"]["task"])
    assert len(held_out) >= 8
    assert all(held_out.isdisjoint(point["rows"]["task"]) for point in result["frontier"])


def test_a_task_without_a_gain_is_refused_and_leaves_the_folder_free(models: Models, tmp_path: Path) -> None:
    task = as_rows(tmp_path / "task.jsonl", texts(range(30, 80)))
    with pytest.raises(ConfigError, match=r"not surely better than .*: the loss falls by"):
        repair(models.settings(tmp_path / "out", models.lora, task_text=task))
    assert not (tmp_path / "out").exists()
