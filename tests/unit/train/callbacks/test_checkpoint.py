"""Which checkpoint a run goes on from, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from keeptune.train.callbacks.checkpoint import (
    CheckpointCallback,
    StopCallback,
    forget_checkpoint,
    last_good_checkpoint,
)
from tests.helpers.models import make_model


def save(folder: Path, step: int, value: float) -> None:
    """What the Trainer does at a save, for a model with one weight of this value."""
    (folder / f"checkpoint-{step}").mkdir()
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
