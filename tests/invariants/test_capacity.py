"""The capacity probe from end to end: it resumes, also from folders of earlier versions, and tells two models apart."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from keeptune.errors import OutputExists
from keeptune.probes.capacity import SATURATED, UNDECIDED, CapacityPlan, capacity_probe, describe, pace, print_capacity
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer

LETTERS = "abcdefghijkl"
LENGTH = 24


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def language(seed: int, documents: int) -> list[str]:
    """Texts in which two letters decide which three may follow, and how often."""
    chance = random.Random(seed)
    follows = {
        one + two: (chance.sample(LETTERS, 3), [chance.random() ** 2 + 0.05 for _ in range(3)])
        for one in LETTERS
        for two in LETTERS
    }
    texts = []
    for _ in range(documents):
        text = "".join(chance.choices(LETTERS, k=2))
        while len(text) < LENGTH - 1:
            text += chance.choices(*follows[text[-2:]])[0]
        texts.append(text)
    return texts


def fitted(width: int, texts: list[str], *, steps: int, rate: float) -> LlamaForCausalLM:
    """The tiny model after plain training."""
    model, tokenizer = make_model(width=width), make_tokenizer()
    input_NT = torch.tensor([[0, *tokenizer(text)["input_ids"]] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = input_NT[torch.randint(len(input_NT), (16,), generator=generator)]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


@pytest.fixture
def task(tmp_path: Path) -> str:
    """Another language of the same letters, which a Z announces: to know both takes room."""
    (tmp_path / "task").mkdir()
    for number, text in enumerate(language(7, 360)):
        (tmp_path / "task" / f"{number:03}.txt").write_text("Z" + text[1:])
    return str(tmp_path / "task" / "*.txt")


def probe(model: LlamaForCausalLM, task: str, folder: Path, **fields: Any) -> dict[str, Any]:
    model.save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    settings = {"out": str(folder / "capacity"), "max_length": LENGTH, "learning_rate": 3e-3, **fields}
    return capacity_probe(CapacityPlan(model=str(folder / "base"), data=task, **settings))


def test_a_probe_goes_on_where_it_was(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"steps": 2, "documents": 10}
    found = probe(make_model(), task, tmp_path, **few)
    out = tmp_path / "capacity"
    assert json.loads((out / "capacity.json").read_text()) == found
    for run, of_run in found["kl"].items():
        way = read_rows(out / run / "runs.jsonl")
        (row,) = [row for row in way if row["step"] == 2]
        assert of_run["value"] == pytest.approx(row["KL"], rel=0.05), "the trainer's meter reads the same rows"
        assert row["lambda"] == (0.0 if run == "plain" else 10.0)
    if found["price"]:
        assert found["price_to_come"] == found["price"]["low"] * pace(way)[1], (
            "the constrained run's readings, the last ones"
        )
    print_capacity(found)
    assert f"{found['gain']['plain']['value']:.4f}" in capsys.readouterr().out
    (out / "readings" / "constrained-self.json").unlink()
    (out / "capacity.json").unlink()
    again = probe(make_model(), task, tmp_path, **few)
    assert "this run is finished" in capsys.readouterr().err
    assert {key: again[key] for key in ("gain", "kl", "price", "verdict")} == {
        key: found[key] for key in ("gain", "kl", "price", "verdict")
    }
    with pytest.raises(OutputExists, match="other settings"):
        probe(make_model(), task, tmp_path, **few, lora=2)
    with pytest.raises(OutputExists, match="holds no capacity probe"):
        probe(make_model(), task, tmp_path, **few, out=str(tmp_path / "task"))


def test_a_probe_of_an_earlier_version_is_continued(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"steps": 2, "documents": 10}
    found, out = probe(make_model(), task, tmp_path, **few), tmp_path / "capacity"
    (out / "constrained").rename(out / "stiff")
    marker = out / "stiff" / "run.json"
    marker.write_text(marker.read_text().replace(str(out / "constrained"), str(out / "stiff")))
    for file in (out / "readings").iterdir():
        content = json.loads(file.read_text())["content"]
        file.unlink()
        (out / "readings" / file.name.replace("constrained", "stiff")).write_text(json.dumps(content))
    (out / "plan.json").write_text(json.dumps(json.loads((out / "plan.json").read_text())["settings"]))
    (out / "readings" / "plain-task.json").write_text("{")
    capsys.readouterr()
    again = probe(make_model(), task, tmp_path, **few)
    assert capsys.readouterr().err.count("this run is finished") == 2
    assert {key: again[key] for key in ("gain", "kl")} == {key: found[key] for key in ("gain", "kl")}
    assert not (out / "constrained").exists()


def test_a_full_model_is_called_saturated_and_one_with_room_is_not(task: str, tmp_path: Path) -> None:
    old = language(1, 3000)
    room = probe(fitted(48, old, steps=250, rate=3e-3), task, tmp_path / "room", steps=120)
    full = probe(fitted(8, old, steps=1200, rate=6e-3), task, tmp_path / "full", steps=120)
    # So short a run leaves the price of the model with room above what the rule calls nothing: lab/LOG.md.
    assert (full["verdict"], room["verdict"]) == (SATURATED, UNDECIDED)
    assert "still falling" in describe(room)
    assert full["price_to_come"] > 1.5 * room["price_to_come"]
    assert full["share"]["high"] < room["share"]["low"]
    assert room["gain"]["plain"]["value"] > full["gain"]["plain"]["value"]
