"""A continual run from names to report: every cell against naive forward passes, memory, interruption, bad input."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from keeptune.audit import run as audit_run
from keeptune.audit.continual import section as continual
from keeptune.audit.continual.section import Continual, right_answers, stages_of, task_column
from keeptune.audit.continual.view import ContinualDetails
from keeptune.audit.meter import Drift
from keeptune.audit.page import views_of
from keeptune.audit.settings import AuditSettings
from keeptune.audit.tasks.items import parse_item
from keeptune.errors import ConfigError, Diverged, SourceError, SourceNotFound
from keeptune.report.codec import from_json
from keeptune.report.document import Report, read_report
from keeptune.report.finding import Finding
from keeptune.report.measures import Verdict
from keeptune.report.terminal import print_views
from tests.helpers.models import make_model, make_tokenizer

TEXTS = ("first", "second", "old")
DOCUMENTS = 12


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """A base, two checkpoints, three texts and a task, as a user names them."""
    models = []
    for seed in range(3):
        make_model(seed).save_pretrained(tmp_path / f"model{seed}")
        make_tokenizer().save_pretrained(tmp_path / f"model{seed}")
        models.append(str(tmp_path / f"model{seed}"))
    texts = []
    for place, name in enumerate(TEXTS):
        lines = [json.dumps({"text": f"{name} {place * 7 + number} " * 4}) for number in range(DOCUMENTS)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        texts.append(f"{name}={tmp_path / f'{name}.jsonl'}")
    task = tmp_path / "quiz.jsonl"
    task.write_text("\n".join(json.dumps(row) for row in quiz()))
    arguments = {"base": models[0], "tuned": tuple(models[1:]), "text": texts, "task": [f"quiz={task}"]}
    return {**arguments, "out": str(tmp_path / "out"), "docs": DOCUMENTS, "max_length": 64}


def audit(run: dict[str, Any], **replaced: Any) -> Report:
    return audit_run.audit(AuditSettings(**{**run, **replaced}), (), (Continual,))


def value(report: Report, measure: str, subject: str, part: str = "") -> float:
    (one,) = report.select("continual", measure=measure, subject=subject, part=part)
    return one.value


def numbers(report: Report) -> list[Finding]:
    return report.findings


def quiz() -> list[dict[str, Any]]:
    return [
        {"question": f"What is {number} and one?", "choices": [str(number + 1), "a fish", "9"], "answer": number % 3}
        for number in range(11)
    ]


@torch.no_grad()
def log_probs(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)


def naive_text(source: str, model: LlamaForCausalLM, base: LlamaForCausalLM) -> tuple[float, float]:
    """−CE and KL(base‖model) of a whole text, document by document, all logits at once and in fp32."""
    tokenizer = make_tokenizer()
    gained, drift, tokens = 0.0, 0.0, 0
    for line in Path(source.partition("=")[2]).read_text().splitlines():
        ids = [tokenizer.convert_tokens_to_ids("<|endoftext|>"), *tokenizer(json.loads(line)["text"])["input_ids"]]
        own, of_base = log_probs(model, ids)[:-1], log_probs(base, ids)[:-1]
        gained += float(own.gather(1, torch.tensor(ids[1:])[:, None]).sum())
        drift += float((of_base.exp() * (of_base - own)).sum())
        tokens += len(ids) - 1
    return gained / tokens, drift / tokens


def naive_accuracy(model: LlamaForCausalLM) -> float:
    tokenizer = make_tokenizer()
    right = 0
    for row in quiz():
        prompt = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
        scores = []
        for choice in row["choices"]:
            answer = tokenizer(f" {choice}")["input_ids"]
            of_answer = log_probs(model, prompt + answer)[len(prompt) - 1 : -1]
            scores.append(float(of_answer.gather(1, torch.tensor(answer)[:, None]).sum()) / len(choice))
        right += int(np.argmax(scores)) == row["answer"]
    return right / len(quiz())


STAGES = ("base", "stage 1", "stage 2")


def test_every_cell_is_that_of_a_naive_forward_pass(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    report = audit(run)
    models = [make_model(seed) for seed in range(3)]
    for source in run["text"]:
        name = source.partition("=")[0]
        for stage, model in zip(STAGES, models, strict=True):
            score, drift = naive_text(source, model, models[0])
            assert value(report, "score", name, stage) == pytest.approx(score, rel=1e-3)
            if stage != "base":
                assert value(report, "kl", name, stage) == pytest.approx(drift, rel=2e-2)
    accuracies = [value(report, "score", "quiz", stage) for stage in STAGES]
    assert accuracies == pytest.approx([naive_accuracy(model) for model in models])
    assert len(set(accuracies)) > 1

    def score(name: str, stage: int) -> float:
        return value(report, "score", name, STAGES[stage])

    assert value(report, "acc", "texts") == pytest.approx((score("first", 2) + score("second", 2)) / 2)
    assert value(report, "bwt", "texts") == pytest.approx(score("first", 2) - score("first", 1))
    assert value(report, "fwt", "texts") == pytest.approx(score("second", 1) - score("second", 0))
    lost = value(report, "stage_forgetting", "first", "stage 1")
    assert lost == pytest.approx(score("first", 1) - score("first", 2))
    for name in ("self", "old"):
        assert value(report, "fall", name) == pytest.approx(score(name, 0) - score(name, 2))
    (record,) = report.sections
    details = from_json(ContinualDetails, record.details)
    described = [(one.name, one.kind, one.stage, one.documents) for one in details.columns]
    assert described[:2] == [("self", "texts", None, 12), ("first", "texts", 1, 12)]
    assert described[2:] == [("second", "texts", 2, 12), ("old", "texts", None, 12), ("quiz", "tasks", None, 11)]
    assert [model.source for model in report.tuned] == list(run["tuned"])
    assert read_report(Path(run["out"]) / "report.json") == report
    print_views(views_of(report, (Continual,)))
    printed = capsys.readouterr().out
    for shown in ("stage 2", "first", f"{-score('first', 2):.4f}", "BWT", "forgotten since the best stage"):
        assert shown in printed


def test_tasks_can_be_the_stages_and_one_stage_has_no_transfer(run: dict[str, Any]) -> None:
    report = audit(run, tuned=run["tuned"][:1], text=[])
    details = from_json(ContinualDetails, report.sections[0].details)
    assert [(column.name, column.stage) for column in details.columns] == [("self", None), ("quiz", 1)]
    assert value(report, "acc", "tasks") == value(report, "score", "quiz", "stage 1")
    assert report.select(measure="bwt") == []


def test_never_more_than_two_models(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = []
    loads: list[Any] = [audit_run.load_model, continual.load_tuned]

    def counted(name: str, *base: Any) -> Any:
        gc.collect()
        model = loads[len(base)](name, *base)
        alive.append(weakref.ref(model))
        most.append(sum(reference() is not None for reference in alive))
        return model

    monkeypatch.setattr(continual, "load_tuned", counted)
    monkeypatch.setattr(audit_run, "load_model", counted)
    checkpoints = [*run["tuned"], run["base"]]
    audit(run, tuned=checkpoints, docs=2, task=[])
    # The base, and one checkpoint at a time beside it.
    assert most == [1, 2, 2, 2]


def test_an_interrupted_run_goes_on(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audit(run)
    measure, calls = continual.measure, []

    def failing(*arguments: Any, label: str, **settings: Any) -> Drift:
        calls.append(label)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return measure(*arguments, label=label, **settings)

    monkeypatch.setattr(continual, "measure", failing)
    again = {**run, "out": f"{run['out']}-again"}
    with pytest.raises(KeyboardInterrupt):
        audit(again)
    report = audit(again)
    assert len(calls) == 6 + 3
    assert numbers(report) == numbers(whole)
    # Other documents are other numbers: nothing kept may stand in for them.
    assert numbers(audit(again, docs=6)) != numbers(whole)


def test_few_documents_are_not_enough(run: dict[str, Any]) -> None:
    report = audit(run, docs=4, task=[])
    assert {one.verdict for one in report.findings} == {None, Verdict.NO_EVIDENCE}


def test_which_columns_belong_to_stages() -> None:
    files = {name: f"{name}.txt" for name in "abc"}
    assert stages_of(files, 2) == {"a": 1, "b": 2, "c": None}
    assert stages_of(files, 4) == {"a": None, "b": None, "c": None}
    assert list(stages_of({"self": "self", **files}, 2).items()) == [("self", None), ("a", 1), ("b", 2), ("c", None)]


def test_bad_input_is_refused(run: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 stages need a column each; texts given: 2, tasks: 1"):
        audit(run, tuned=[*run["tuned"], run["base"]], text=run["text"][:2])
    with pytest.raises(ConfigError, match="two models, not stages"):
        audit(run, shared_vocabulary=True)
    with pytest.raises(SourceNotFound, match="nowhere"):
        audit(run, tuned=[run["tuned"][0], str(tmp_path / "nowhere")])
    other = tmp_path / "other"
    make_model(vocab=260).save_pretrained(other)
    make_tokenizer().save_pretrained(other)
    with pytest.raises(ConfigError, match="different vocabularies"):
        audit(run, tuned=[str(other)])


def test_a_broken_checkpoint_is_said_and_not_kept(run: dict[str, Any], tmp_path: Path) -> None:
    broken = make_model(seed=1)
    torch.nn.init.constant_(broken.model.norm.weight, float("nan"))
    broken.save_pretrained(tmp_path / "model2")
    with pytest.raises(Diverged, match="no numbers"):
        audit(run)


def test_items_that_one_checkpoint_cannot_answer_leave_the_column() -> None:
    answers = [[[1, 0], [0, 1], [1, 1]], [[1, 1], None, [1, 0]]]
    column = task_column("quiz", 1, answers)
    np.testing.assert_array_equal(column.sums_LD, [[1, 1], [0, 1], [1, 0]])
    with pytest.raises(SourceError, match="no item of quiz"):
        task_column("quiz", 1, [[None], [[1, 1]]])
    item = parse_item({"question": "long " * 100, "choices": ["a", "b"], "answer": 0}, "line 1")
    assert right_answers(make_model(), make_model(1), make_tokenizer(), [item], "Asking") == [None]
