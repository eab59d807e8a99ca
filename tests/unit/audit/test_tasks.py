"""Multiple choice: log-likelihoods against a naive forward pass and lm-eval, boundaries, what is left out, reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune import cli
from keeptune.audit import meter, tasks
from keeptune.audit.items import Item
from keeptune.audit.tasks import (
    HEADLINE,
    Choices,
    Task,
    TaskAnswers,
    load_tasks,
    measure_task,
    score_choices,
    task_findings,
)
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.report.codec import from_json
from keeptune.report.document import Status, read_report
from keeptune.report.finding import Finding, select
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer

ITEMS = [
    Item(name="colour", question="Which colour is the sky?", choices=("blue", "blue and red", "green"), right=0),
    Item(name="number", question="Seven and three?", choices=("1", "10", "100", "11", "7"), right=1),
    Item(name="heat", question="What melts?", choices=("ice in the sun", "a stone"), right=0),
]
STYLES = pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])


def texts(item: Item, choice: str, *, chat: bool) -> tuple[str, str]:
    question = f"Question: {item.question}\nAnswer:"
    if chat:
        return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", choice
    return question, f" {choice}"


@torch.no_grad()
def naive(model: LlamaForCausalLM, prompt: str, answer: str) -> float:
    """One option, alone, all logits: no batch, no padding, and no merges that could blur the boundary."""
    tokenizer = make_tokenizer()
    prompt_ids, answer_ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
    log_probs = model(input_ids=torch.tensor([prompt_ids + answer_ids])).logits[0].float().log_softmax(dim=-1)
    first = len(prompt_ids) - 1
    return sum(float(log_probs[first + place, token]) for place, token in enumerate(answer_ids))


@STYLES
@pytest.mark.parametrize("batch_tokens", [1, 150, 4096])
def test_log_likelihoods_are_those_of_a_naive_forward_pass(
    chat: bool, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "BATCH_TOKENS", batch_tokens)
    pair = make_model().double(), make_model(seed=1).double()
    for item, score_2C in zip(ITEMS, score_choices(*pair, make_tokenizer(), ITEMS, chat=chat), strict=True):
        expected_2C = [[naive(model, *texts(item, choice, chat=chat)) for choice in item.choices] for model in pair]
        assert score_2C is not None
        np.testing.assert_allclose(score_2C, expected_2C, rtol=1e-5)


@STYLES
def test_log_likelihoods_are_those_of_lm_eval(chat: bool) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    pair, tokenizer = (make_model().double(), make_model(seed=1).double()), make_tokenizer()
    scores = score_choices(*pair, tokenizer, ITEMS, chat=chat)
    for position, model in enumerate(pair):
        theirs = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=256, device="cpu")
        for item, score_2C in zip(ITEMS, scores, strict=True):
            pairs = [texts(item, choice, chat=chat) for choice in item.choices]
            # It moves white space from the end of a prompt to the answer, and scores it with every option.
            pairs.append((pairs[0][0].rstrip("\n"), "\n"))
            asked = [instance("loglikelihood", {}, pair_, number) for number, pair_ in enumerate(pairs)]
            *expected_C, line_break = [value for value, _ in theirs.loglikelihood(asked, disable_tqdm=True)]
            assert score_2C is not None
            np.testing.assert_allclose(score_2C[position], np.array(expected_C) - chat * line_break, rtol=1e-5)


def test_a_token_across_the_boundary_belongs_to_the_option() -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*letters, ":Ġ", "10", "100"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "Ġ"), ("1", "0"), ("10", "0")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    for choice, row in zip(ITEMS[1].choices, tasks._rows(ITEMS[1], 1, tokenizer, chat=False), strict=True):
        predicted = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(predicted) == f": {choice}"
        assert row["labels"] == [-100] * (len(row["labels"]) - len(predicted)) + row["input_ids"][-len(predicted) :]


def test_a_document_start_that_the_tokenizer_writes_comes_once() -> None:
    tokenizer = make_tokenizer("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}")
    tokenizer.add_bos_token = True
    start = tokenizer.bos_token_id
    assert tokenizer("a")["input_ids"][0] == start
    for chat in (False, True):
        for row in tasks._rows(ITEMS[0], 0, tokenizer, chat=chat):
            assert row["input_ids"].count(start) == 1
            assert row["input_ids"][0] == start


def scored(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *scores: list[list[float]] | None
) -> tuple[TaskAnswers, list[Finding]]:
    given = [None if score is None else np.array(score) for score in scores]
    monkeypatch.setattr(tasks, "score_choices", lambda *models, **options: given)
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


def test_items_longer_than_the_context_and_scores_that_are_not_finite_are_left_out() -> None:
    tokenizer, long = make_tokenizer(), Item(name="long", question="why " * 60, choices=("a", "b" * 20), right=0)
    pair = make_model(), make_model(seed=1)
    scores = score_choices(*pair, tokenizer, [ITEMS[0], long], chat=False)
    assert scores[0] is not None
    assert scores[1] is None
    assert score_choices(*pair, tokenizer, [long], chat=False) == [None]
    with torch.no_grad():
        pair[1].model.norm.weight.fill_(torch.nan)
    assert score_choices(*pair, tokenizer, ITEMS, chat=False) == [None] * 3


def test_the_template_is_asked_only_where_there_is_one(tmp_path: Path) -> None:
    asked = Task(source="a.jsonl", items=ITEMS, readable=3, flaws=[])
    pair, steps = (make_model(), make_model(seed=1)), Steps(tmp_path)
    assert set(measure_task(*pair, make_tokenizer(), asked, "a", steps).formats) == {"plain", "chat"}
    assert set(measure_task(*pair, make_tokenizer(None), asked, "a", steps).formats) == {"plain"}
    other = steps.of(template="none for users")
    with pytest.raises(ConfigError, match="no user turns"):
        measure_task(*pair, make_tokenizer("{{ raise_exception('no user turns') }}"), asked, "a", other)


def write_task(path: Path, count: int) -> Path:
    rows = [
        {"id": f"q{n}", "question": f"Which is {n}?", "choices": [str(n), str(n + 1), "none"], "answer": n % 3}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"question": "half a li')
    return path


def test_items_are_evenly_spaced_and_names_are_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_task(tmp_path / "task.jsonl", 10)
    loaded = load_tasks([f"a={path}", f"b={path}"], 4)
    assert [item.name for item in loaded["a"].items] == ["q0", "q2", "q5", "q7"]
    assert (loaded["b"].readable, len(loaded["b"].flaws)) == (10, 1)
    assert "1 rows hold no item" in capsys.readouterr().err
    assert len(load_tasks([f"a={path}"], 99)["a"].items) == 10
    assert load_tasks([], 1) == {}
    for task in (str(path), f"={path}", "a=", f"a b={path}"):
        with pytest.raises(ConfigError, match=r"--task .* has no plain name"):
            load_tasks([task], 4)
    with pytest.raises(ConfigError, match="--task is given twice for a"):
        load_tasks([f"a={path}"] * 2, 4)
    with pytest.raises(SourceNotFound) as refused:
        load_tasks(["arcs"], 4)
    assert "arc, mmlu, commonsenseqa" in refused.value.fix
    with pytest.raises(SourceNotFound):
        load_tasks([f"a={tmp_path}"], 4)


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
