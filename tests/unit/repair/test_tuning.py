"""Self-repair: what it trains towards, what it adds to each weight, and resuming to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from keeptune.errors import ConfigError, Interrupted
from keeptune.repair import tuning
from keeptune.repair.change import Change, state_of
from keeptune.repair.methods.interpolate import Interpolate
from keeptune.repair.texts import TaskText
from keeptune.repair.tuning import SelfRepair, Start, Texts, self_repair
from tests.unit.repair.conftest import World

START = Start(method=Interpolate(), strength=0.4)


def trained(world: World, file: Path, key: str = "a", change: Change | None = None) -> Any:
    texts = Texts(base=world.reader.base_text, tuned=world.reader.tuned_text, task=None)
    return self_repair(change or world.pair.change, START, texts, world.settings, file, key)


def test_the_result_is_what_was_trained(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging the factors into the start gives the logits of the model in training at its end."""
    seen: list[torch.Tensor] = []
    inputs = torch.arange(3, 15)[None]
    train = tuning._train

    def train_and_look(model: Any, *rest: Any) -> None:
        train(model, *rest)
        with torch.no_grad():
            seen.append(model(input_ids=inputs).logits)

    monkeypatch.setattr(tuning, "_train", train_and_look)
    before = set(state_of(world.pair.model))
    method = trained(world, tmp_path / "t.safetensors")
    assert set(state_of(world.pair.model)) == before, "no layer of PEFT is left"
    world.pair.change.place(lambda name, base, tuned: method.weight(name, base, tuned, 1.0))
    with torch.no_grad():
        assert torch.allclose(world.pair.model(inputs).logits, seen[0], atol=1e-5)
        world.pair.change.place(START.weight)
        assert not torch.allclose(world.pair.model(inputs).logits, seen[0], atol=1e-4)
        world.pair.change.place(lambda name, base, tuned: method.weight(name, base, tuned, 0.0))
        world.pair.change.place_base()
    again = trained(world, tmp_path / "t.safetensors")
    assert len(seen) == 1, "a finished run is read"
    assert set(again.added) == set(method.added)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(_file(trained(world, tmp_path / "whole.safetensors"), tmp_path / "whole.safetensors"))
    monkeypatch.setattr(tuning, "_CHECKPOINT_EVERY", 2)
    gradients, steps = tuning._gradients, list[int]()

    def stop_at_3(model: Any, texts: Any, settings: Any, step: int, *rest: Any) -> tuple[float, float]:
        if step == 3 and 3 not in steps:
            steps.append(step)
            raise Interrupted("stopped", "run it again")
        steps.append(step)
        return gradients(model, texts, settings, step, *rest)

    monkeypatch.setattr(tuning, "_gradients", stop_at_3)
    file = tmp_path / "cut.safetensors"
    with pytest.raises(Interrupted):
        trained(world, file)
    trained(world, file)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert {name: torch.equal(tensor, whole[name]) for name, tensor in load_file(file).items()} == dict.fromkeys(
        whole, True
    )
    assert not list(tmp_path.glob("*checkpoint*"))


def _file(method: SelfRepair, file: Path) -> Path:
    assert method.added
    return file


def test_another_run_does_not_take_its_checkpoint(world: World, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    trained(world, file, "a")
    kept = file.read_bytes()
    trained(world, file, "b")
    assert file.read_bytes() != kept


def test_the_gradient_is_that_of_both_losses(world: World) -> None:
    """At the base KL(base‖θ) has no gradient, at the tuned model KL(tuned‖θ) has none."""
    texts = Texts(base=world.reader.base_text, tuned=world.reader.tuned_text, task=None)
    model, device = world.pair.model, torch.device("cpu")

    def size(lambda_: float) -> float:
        model.requires_grad_(True).zero_grad()
        tuning._gradients(model, texts, world.settings, 0, lambda_, device)
        return float(sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None) ** 0.5)

    world.pair.change.place_tuned()
    assert size(0.0) < 0.05 * size(1.0)
    world.pair.change.place_base()
    first = size(0.0)
    assert first > 0.01 and abs(size(100.0) - first) < 0.2 * first
    model.requires_grad_(False)


def test_the_task_is_learned_on_its_training_rows(world: World) -> None:
    ids = list(range(3, 20))
    rows: Any = [{"input_ids": ids, "labels": ids, "document": "a"}]
    task = TaskText(source="", choosing=[], fresh=[], training=rows)
    texts = Texts(base=world.reader.base_text, tuned=world.reader.tuned_text, task=task)
    world.pair.change.place_tuned()
    world.pair.model.requires_grad_(True)
    with_task = tuning._gradients(world.pair.model, texts, world.settings, 0, 1.0, torch.device("cpu"))
    with torch.no_grad():
        loss = float(world.pair.model(torch.tensor([ids]), labels=torch.tensor([ids])).loss)
    assert with_task[1] == pytest.approx(loss, rel=0.02)
    world.pair.model.requires_grad_(False).zero_grad()


def test_a_change_of_no_linear_layer_cannot_be_trained(world: World, tmp_path: Path) -> None:
    change = world.pair.change
    norms = Change(model=change.model, base=change.base, tuned=change.tuned, names=("model.norm.weight",))
    with pytest.raises(ConfigError, match="no linear layer"):
        trained(world, tmp_path / "t.safetensors", change=norms)
