"""Which checkpoint a run goes on from, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch

from keeptune.errors import SourceError
from keeptune.train.callbacks.checkpoint import (
    CheckpointCallback,
    StopCallback,
    check_files,
    forget_checkpoint,
    last_good_checkpoint,
)
from tests.helpers.models import make_model


def save(folder: Path, step: int, value: float, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """What the Trainer does at a save, for a model with one weight of this value."""
    (folder / f"checkpoint-{step}").mkdir()
    for name, content in files.items():
        (folder / f"checkpoint-{step}" / name).write_bytes(content)
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight[0] = value
    args = SimpleNamespace(output_dir=str(folder), device=torch.device("cpu"))
    state = SimpleNamespace(global_step=step, is_world_process_zero=True)
    CheckpointCallback().on_save(args, state, None, model=model)


def test_only_complete_checkpoints_with_finite_weights_are_resumed(tmp_path: Path) -> None:
    assert last_good_checkpoint(tmp_path) is None
    for step, value in ((2, 1.0), (10, 1.0), (20, float("nan"))):
        save(tmp_path, step, value)
    (tmp_path / "checkpoint-30").mkdir()
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    forget_checkpoint(tmp_path, 10)
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "complete", "../runs.jsonl"])
def test_a_changed_file_of_a_checkpoint_is_refused(tmp_path: Path, damaged: str) -> None:
    readings, checkpoint = tmp_path / "runs.jsonl", tmp_path / "checkpoint-4"
    readings.write_text('{"step": 0}\n{"step": 4}\n')
    save(tmp_path, 4, 1.0, {"model.safetensors": b"weights", "optimizer.pt": b"moments"})
    with readings.open("a") as file:
        file.write('{"step": 6}\n')  # taken after the checkpoint, and again after a resume
    check_files(checkpoint)
    path = checkpoint / damaged
    whole = path.read_bytes()
    for place in range(0, len(whole) - (12 if path.samefile(readings) else 0), 1 + len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
        if whole[place : place + 1].isspace():
            continue
        with pytest.raises(SourceError, match="is damaged") as refused:
            for rank in range(2):
                check_files(checkpoint, rank, 2)
        assert "--overwrite" in refused.value.fix or f"delete {checkpoint}" in refused.value.fix
    path.write_bytes(whole)
    check_files(checkpoint)


def test_the_mark_of_an_earlier_version_says_nothing_of_files(tmp_path: Path) -> None:
    (tmp_path / "complete").touch()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    check_files(tmp_path)


def test_a_signal_asks_for_a_stop_after_the_step_and_a_second_one_stops_at_once() -> None:
    stop, args = StopCallback(SimpleNamespace(paused=False)), SimpleNamespace(device=torch.device("cpu"))
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    stop.on_step_end(args, SimpleNamespace(global_step=3, max_steps=9), control)
    assert not control.should_training_stop
    before = signal.getsignal(signal.SIGTERM)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        stop.on_step_end(args, SimpleNamespace(global_step=3, max_steps=9), control)
        assert control.should_save
        assert control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
