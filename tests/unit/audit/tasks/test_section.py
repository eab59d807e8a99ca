"""The section of tasks: what answers come to as findings, and tasks from the command line to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keeptune import cli
from keeptune.audit.tasks import scoring
from keeptune.audit.tasks.scoring import HEADLINE, Choices, Task, TaskAnswers, measure_task
from keeptune.audit.tasks.section import task_findings
from keeptune.errors import SourceError
from keeptune.report.codec import from_json
from keeptune.report.document import Status, read_report
from keeptune.report.finding import Finding, select
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.tasks import ITEMS, write_task


def scored(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *scores: list[list[float]] | None
) -> tuple[TaskAnswers, list[Finding]]:
    given = [None if score is None else np.array(score) for score in scores]
    monkeypatch.setattr(scoring, "score_choices", lambda *models, **options: given)
    asked = Task(source="a.jsonl", items=ITEMS[: len(scores)], readable=9, flaws=["line 3: no question"])
    steps = Steps(folder, scores=scores)
    answers = measure_task(make_model(), make_model(), make_tokenizer(None), asked, "a", steps)
    return answers, list(task_findings("tasks", "a", asked.items, answers))


def test_both_scorings_choose_as_lm_eval_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Per character: blue −1, blue and red −.5, green −.8 for the base; −1, −2, −.4 for the tuned model.
    answers, findings = scored(monkeypatch, tmp_path, [[-4.0, -6.0, -4.0], [-4.0, -24.0, -2.0]])
    assert answers.formats["plain"] == {
        "per_character": Choices(base="B", tuned="C"), "raw_sum": Choices(base="A", tuned="C")
    }  # fmt: skip
    first, other = select(findings, measure="accuracy")
    assert (first.part, first.lost, first.headline) == ("plain", 0, True)
    assert (other.part, other.lost, other.headline, other.verdict) == ("plain, raw sum", 1, False, None)


def test_what_has_no_score_is_counted_and_not_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = None, [[-1.0, -1.0, -9.0, -9.0, -9.0]] * 2, [[-1.0, -9.0]] * 2
    answers, findings = scored(monkeypatch, tmp_path, *given)
    assert answers.formats["plain"]["per_character"] == Choices(base="-BA", tuned="-BA")
    assert answers.right == "ABA"
    accuracy, agreement = findings[:2]
    assert (accuracy.n, accuracy.base, accuracy.value) == (2, accuracy.tuned, 0.0)
    assert accuracy.base is not None
    assert accuracy.base.value == 1.0
    assert (agreement.measure, agreement.value, agreement.verdict) == ("agreement", 1.0, None)
    # Two items cannot show that the models guess independently: nothing is corrected for guessing.
    assert select(findings, measure="lost_beyond_chance") == []
    with pytest.raises(SourceError, match="no item of a"):
        scored(monkeypatch, tmp_path, None, None)


def audit(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["keeptune", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_the_command_line_audits_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    tuned, out = tmp_path / "tuned", tmp_path / "audit"
    make_model(seed=1).save_pretrained(tuned)
    make_tokenizer().save_pretrained(tuned)
    text = ["--text", f"mine={tmp_path / 'mine.txt'}", "--out", out, "--skip", "where"]
    (tmp_path / "mine.txt").write_text("A text of some length. " * 9)
    task = ["--task", f"sums={write_task(tmp_path / 'task.jsonl', 12)}", "--items", 9]
    assert audit(monkeypatch, model_folder, tuned, *text, *task) == 0
    report, table = read_report(out / "report.json"), capsys.readouterr().out
    assert {one.subject for one in report.select("drift")} == {"self", "self-chat", "mine"}
    record = report.section("tasks")
    assert record is not None
    asked = from_json(dict[str, TaskAnswers], record.details)["sums"]
    assert "9 of 12 questions" in record.methods[0]
    assert "1 row of the source hold no question" in record.methods[0]
    for style, ways in asked.formats.items():
        (accuracy,) = report.select("tasks", measure="accuracy", part=style)
        assert accuracy.base is not None
        assert accuracy.tuned is not None
        right = [letter == key for letter, key in zip(ways[HEADLINE].base, asked.right, strict=True)]
        assert accuracy.base.value == pytest.approx(sum(right) / 9)
        assert accuracy.value == pytest.approx(accuracy.tuned.value - accuracy.base.value)
        assert f"{accuracy.tuned.value * 100:.1f}" in table
    assert audit(monkeypatch, model_folder, model_folder, *text, *task) == 0
    report = read_report(out / "report.json")
    assert [one.value for one in report.select("tasks", measure="agreement")] == [1.0, 1.0]
    assert {one.p for one in report.select("tasks", measure="accuracy", headline=True)} == {None}, "9 items are few"
    capsys.readouterr()
    assert audit(monkeypatch, model_folder, tuned, *text) == 0
    assert "still answers" not in capsys.readouterr().out
    record = read_report(out / "report.json").section("tasks")
    assert record is not None
    assert (record.status, record.reason) == (Status.NOT_RUN, "no --task is given")
    assert audit(monkeypatch, model_folder, tuned, *text, "--task", "sums=missing.jsonl") == 2
