"""The demo from end to end on the tiny model: the same stages, files and numbers as on the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keeptune.demo.plan import DemoPlan
from keeptune.demo.run import MODELS, demo
from keeptune.errors import OutputExists
from keeptune.train.readings import read_rows


@pytest.fixture
def plan(tmp_path: Path, model_folder: Path) -> DemoPlan:
    for kind in ("task", "old"):
        (tmp_path / kind).mkdir()
        for number in range(8):
            text = f"{kind} text {number}: " + " ".join(str((number + 3) * word) for word in range(90))
            (tmp_path / kind / f"{number}.txt").write_text(text)
    return DemoPlan(
        out=str(tmp_path / "demo"),
        model=str(model_folder),
        data=str(tmp_path / "task"),
        text=str(tmp_path / "old"),
        steps=4,
        documents=6,
    )


def test_the_whole_demo_and_a_second_run_that_skips_what_is_done(plan: DemoPlan) -> None:
    summary = demo(plan)
    assert json.loads((plan.folder / "summary.json").read_text()) == summary
    for key in ("drift_ratio_matched_steps", "drift_ratio_equal_loss"):
        for ratio in summary[key].values():
            assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert set(summary["drift_ratio_equal_loss"]) == {"self", plan.text}
    rows = {run: read_rows(plan.folder / run / "runs.jsonl") for run in ("plain", "replay")}
    assert rows["plain"][-1]["step"] == 4
    assert rows["replay"][-1]["step"] == 6
    assert summary["task_loss"]["replay"] == rows["replay"][-1]["L_ft"]
    assert summary["task_loss"]["base"] == rows["replay"][0]["L_ft"]
    page = (plan.folder / "report.html").read_text()
    assert f"{summary['drift']['self']['replay']['value']:.4f}" in page
    assert str(plan.steps) in page

    models = {
        place: (plan.folder / place / "adapter_model.safetensors").stat().st_mtime_ns for place in MODELS.values()
    }
    again = demo(plan)
    assert {place: (plan.folder / place / "adapter_model.safetensors").stat().st_mtime_ns for place in models} == models
    assert again["drift"] == summary["drift"]

    with pytest.raises(OutputExists, match="other settings"):
        demo(DemoPlan(**{**vars(plan), "seed": 1}))


def test_a_folder_of_something_else_is_refused(plan: DemoPlan) -> None:
    plan.folder.mkdir()
    (plan.folder / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="holds no demo"):
        demo(plan)
