"""A small task for the tiny model, and a plan of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.plan.settings import PlanSettings


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> PlanSettings:
    (tmp_path / "task").mkdir()
    for number in range(10):
        text = f"Text {number}: " + " ".join(f"{(number + 3) * word} and {word * word % 17};" for word in range(14))
        (tmp_path / "task" / f"{number}.txt").write_text(text)
    return PlanSettings(
        model=str(model_folder),
        data=str(tmp_path / "task"),
        budget=0.5,
        out=str(tmp_path / "plan"),
        minutes=600.0,  # one pass over the data bounds the runs, not the speed of the machine
        max_rank=16,
        learning_rate=1e-3,
        batch_size=2,
        max_length=32,
    )
