"""`keeptune plan --ray` on a real Ray gives the plan of one process, also where a run's process is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from keeptune.cluster import start_ray
from keeptune.plan import ladder
from keeptune.plan.run import plan
from keeptune.plan.settings import PlanSettings

pytestmark = pytest.mark.skipif("KEEPTUNE_RAY" not in os.environ, reason="needs Ray, and is long: make ray-tests")


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> PlanSettings:
    """Bounded by one pass over the data and not by minutes, so that time decides nothing."""
    (tmp_path / "task").mkdir()
    for number in range(6):
        text = f"Text {number}: " + " ".join(f"{(number + 3) * word} and {word * word % 17};" for word in range(5))
        (tmp_path / "task" / f"{number}.txt").write_text(text)
    return PlanSettings(
        model=str(model_folder),
        data=str(tmp_path / "task"),
        budget=0.5,
        out=str(tmp_path / "alone"),
        minutes=600.0,
        max_rank=16,
        learning_rate=1e-3,
        batch_size=2,
        max_length=32,
    )


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kill a process that makes a run of the pilot, the second one or a later one."""
    while not killed:
        time.sleep(0.01)
        if len(list(folder.glob("cells/*/runs.jsonl"))) < 2:
            continue
        for child in psutil.Process().children(recursive=True):
            if "ray::_call" in "".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                break


def decided(document: Any) -> dict[str, Any]:
    """What a plan says, without how long things took."""
    chosen = {key: value for key, value in document["plan"].items() if key != "seconds"}
    timed = {"wall", "memory", "readings"}
    runs = [{key: value for key, value in run.items() if key not in timed} for run in document["pilot"]["runs"]]
    return {"plan": chosen, "runs": runs}


def test_the_plan_is_that_of_one_process(monkeypatch: pytest.MonkeyPatch, settings: PlanSettings) -> None:
    monkeypatch.setattr(ladder, "REPEATS", 2)
    expected = decided(plan(settings))
    ray = start_ray()
    try:
        elsewhere, killed = replace(settings, out=str(settings.folder.parent / "ray"), ray=True), []
        killer = threading.Thread(target=kill_one, args=(elsewhere.folder, killed), daemon=True)
        killer.start()
        assert decided(plan(elsewhere)) == expected
        assert killed
    finally:
        ray.shutdown()
