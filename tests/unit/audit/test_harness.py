"""Tasks of lm-eval: asked of two models through the real harness, offline, and compared item by item."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keeptune.audit import harness
from keeptune.audit.harness import check_harness, compared, measure_harness
from keeptune.audit.terminal import print_harness
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer

ITEMS = 12


@pytest.fixture
def task(tmp_path: Path) -> str:
    rows = [{"q": f"Which is {n}?", "options": [str(n), str(n + 1), "none"], "right": n % 3} for n in range(ITEMS)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    content = {
        "task": "sums_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "sums.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "options",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    # JSON is YAML.
    (tmp_path / "sums_local.yaml").write_text(json.dumps(content))
    return str(tmp_path / "sums_local.yaml")


def test_both_models_answer_the_same_items(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_harness([task])
    pair, tokenizer, steps = (make_model(), make_model(seed=1)), make_tokenizer(), Steps(tmp_path / "steps")
    report = measure_harness(*pair, tokenizer, [task], 10, steps)
    metrics = report["lm_eval"]["tasks"][task]
    assert set(metrics) == {"acc", "acc_norm"}
    for result in metrics.values():
        assert result["items"] == 10
        assert result["change"]["value"] == pytest.approx(result["tuned"] - result["base"])
        assert (result["wrong_to_right"] - result["right_to_wrong"]) / 10 == pytest.approx(result["change"]["value"])
        assert result["higher_is_better"] is True
    print_harness(report)
    assert "acc_norm" in capsys.readouterr().out
    same = measure_harness(pair[0], pair[0], tokenizer, [task], 10, Steps(tmp_path / "same"))
    assert {one["mcnemar_p"] for one in same["lm_eval"]["tasks"][task].values()} == {1.0}
    assert measure_harness(*pair, tokenizer, [], 10, steps) == {}


def test_a_kept_answer_is_not_asked_again(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, tokenizer, steps = (make_model(), make_model(seed=1)), make_tokenizer(), Steps(tmp_path / "steps")
    first = measure_harness(*pair, tokenizer, [task], 4, steps)
    monkeypatch.setattr(harness, "_ask", pytest.fail)
    assert measure_harness(*pair, tokenizer, [task], 4, steps) == first


def test_items_are_paired_by_name_and_other_metrics_are_means() -> None:
    base = {"a": {"f1": 0.5}, "b": {"f1": 0.25}, "c": {"f1": 1.0}}
    tuned = {"b": {"f1": 0.75}, "a": {"f1": 0.5}}
    result = compared(base, tuned, "f1")
    assert (result["items"], result["base"], result["tuned"], result["change"]["value"]) == (2, 0.375, 0.625, 0.25)
    assert "mcnemar_p" not in result
    with pytest.raises(SourceError, match="no item has em"):
        compared(base, tuned, "em")


def test_what_cannot_be_run_is_refused(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceNotFound, match="no task nosuch"):
        check_harness(["nosuch"])
    with pytest.raises(SourceNotFound, match="no task file"):
        check_harness([str(tmp_path / "no.yaml")])
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(SourceError, match="names no task"):
        check_harness([str(tmp_path / "a.yaml")])
    (tmp_path / "sums.jsonl").unlink()
    with pytest.raises(SourceError, match="cannot run"):
        measure_harness(make_model(), make_model(), make_tokenizer(), [task], 4, Steps(tmp_path / "steps"))
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the harness"):
        check_harness([task])
