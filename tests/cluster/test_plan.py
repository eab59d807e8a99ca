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
from tests.helpers.plans import plan_settings

pytestmark = pytest.mark.skipif("KEEPTUNE_RAY" not in os.environ, reason="needs Ray, and is long: make ray-tests")


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> PlanSettings:
    return plan_settings(tmp_path, model_folder)


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
