"""Tasks of lm-eval: asked of two models through the real harness, offline, and compared item by item."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from keeptune.audit.section import Loaded
from keeptune.audit.settings import AuditSettings
from keeptune.audit.tasks import harness
from keeptune.audit.tasks.harness import Answers, Harness, check_harness, harness_findings
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.report.finding import Finding, Level
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


def ask(task: str, folder: Path, base: LlamaForCausalLM, tuned: LlamaForCausalLM, items: int = ITEMS) -> list[Finding]:
    settings = AuditSettings(base="base", tuned=("tuned",), lm_eval=[task], items=items)
    steps, tokenizer = Steps(folder), make_tokenizer()
    loaded = Loaded(base=base, second=tuned, tokenizer=tokenizer, rows={}, sources={}, vocabulary=None, steps=steps)
    return Harness(settings).measure(loaded).findings


def test_both_models_answer_the_same_items(task: str, tmp_path: Path) -> None:
    pair = make_model(), make_model(seed=1)
    findings = ask(task, tmp_path / "steps", *pair)
    assert [(one.subject, one.part) for one in findings] == [("sums_local", "acc"), ("sums_local", "acc_norm")]
    for one in findings:
        assert one.n == ITEMS
        assert one.base is not None
        assert one.tuned is not None
        assert one.value == pytest.approx(one.tuned.value - one.base.value)
        assert ((one.gained or 0) - (one.lost or 0)) / ITEMS == pytest.approx(one.value)
        assert one.better == "higher"
    same = ask(task, tmp_path / "same", pair[0], pair[0])
    assert {one.p for one in same} == {1.0}
    assert Harness(AuditSettings(base="base", tuned=("tuned",))).not_asked() == "no --lm-eval is given"


def test_a_kept_answer_is_not_asked_again(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_model(), make_model(seed=1)
    first = ask(task, tmp_path / "steps", *pair, items=4)
    monkeypatch.setattr(harness, "_ask", pytest.fail)
    assert ask(task, tmp_path / "steps", *pair, items=4) == first


def test_items_are_paired_by_name_and_other_metrics_are_means() -> None:
    base = Answers(scores={"a": {"f1": 0.5}, "b": {"f1": 0.25}, "c": {"f1": 1.0}}, higher_is_better={"f1": False})
    tuned = Answers(scores={"b": {"f1": 0.75}, "a": {"f1": 0.5}}, higher_is_better={})
    (one,) = harness_findings("lm_eval", "t", base, tuned)
    assert (one.n, one.base, one.tuned, one.value) == (2, Level(value=0.375), Level(value=0.625), 0.25)
    assert (one.lost, one.better) == (None, "lower")
    with pytest.raises(SourceError, match="no item has f1"):
        list(harness_findings("lm_eval", "t", base, Answers(scores={}, higher_is_better={})))


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
        ask(task, tmp_path / "steps", make_model(), make_model())
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the harness"):
        check_harness([task])
