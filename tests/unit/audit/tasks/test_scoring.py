"""Multiple choice: log-likelihoods against a naive forward pass and lm-eval, boundaries, what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.audit import meter
from keeptune.audit.tasks import scoring
from keeptune.audit.tasks.items import Item
from keeptune.audit.tasks.scoring import Task, load_tasks, measure_task, score_choices
from keeptune.errors import ConfigError, SourceNotFound
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.tasks import ITEMS, write_task

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
    for choice, row in zip(ITEMS[1].choices, scoring._rows(ITEMS[1], 1, tokenizer, chat=False), strict=True):
        predicted = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(predicted) == f": {choice}"
        assert row["labels"] == [-100] * (len(row["labels"]) - len(predicted)) + row["input_ids"][-len(predicted) :]


def test_a_document_start_that_the_tokenizer_writes_comes_once() -> None:
    tokenizer = make_tokenizer("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}")
    tokenizer.add_bos_token = True
    start = tokenizer.bos_token_id
    assert tokenizer("a")["input_ids"][0] == start
    for chat in (False, True):
        for row in scoring._rows(ITEMS[0], 0, tokenizer, chat=chat):
            assert row["input_ids"].count(start) == 1
            assert row["input_ids"][0] == start


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
