"""What opens a row is chosen by what the base predicts after it, and is context everywhere: no loss, no reading."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.data.templates import on_day, select_template
from keeptune.errors import ConfigError, OutputExists
from keeptune.log import logger
from keeptune.models.modeling import hidden_states
from keeptune.replay.batch import open_rows, open_windows, opened_batch
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.generate import sample_pool, text_pool
from keeptune.replay.openings import Prompts, chat_opening
from keeptune.replay.openings.candidates import best_of
from keeptune.replay.openings.probe import Probe, Prober
from keeptune.replay.pool import ReplayPool
from keeptune.replay.sampled import sampling_z
from keeptune.replay.teachers import AdapterOff, CachedHidden, CachedTopK, LiveCopy, frozen_head
from keeptune.storage import sha256_file
from keeptune.train.replay_term import replay_sum
from tests.helpers.families import family_model
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer
from tests.helpers.openings import RAGGED, ragged_pool

SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
USER = "<|im_start|>user\n"


def test_the_opening_ends_where_the_user_speaks(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(chat_opening(tokenizer)) == USER
    spoken = make_tokenizer(SYSTEM + (tokenizer.chat_template or ""))
    assert spoken.decode(chat_opening(spoken)) == SYSTEM + USER


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('never') }}", "cannot render"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "nothing before"),
        ("<|im_start|>{% for m in messages %}{{ m['content'][:3] }}{% endfor %}", "changes them"),
    ],
)
def test_a_template_without_an_opening_is_refused(template: str | None, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        chat_opening(make_tokenizer(template))


def test_one_of_several_templates_opens_chats(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = {"kind": SYSTEM + CHAT_TEMPLATE, "plain": CHAT_TEMPLATE}
    with pytest.raises(ConfigError, match="chat templates kind, plain, and none is the default"):
        chat_opening(tokenizer)
    select_template(tokenizer, "kind")
    assert tokenizer.decode(chat_opening(tokenizer)) == SYSTEM + USER


def test_a_pool_of_chats(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    opening = chat_opening(tokenizer)
    pool = sample_pool(model, tokenizer, tmp_path, tokens=40, length=20, prompts="chat")
    assert pool.settings.prompts == "chat"
    for row in range(pool.rows):
        tokens = pool.tokens_of(row).tolist()
        assert tokens[: len(opening)] == opening
        assert len(tokens) == len(opening) + 20, "what opens a row is no target"
    assert len({tuple(pool.tokens_of(row).tolist()) for row in range(pool.rows)}) == pool.rows
    assert ReplayPool.open(tmp_path).settings == pool.settings
    with pytest.raises(OutputExists, match="prompts"):
        sample_pool(model, tokenizer, tmp_path, tokens=40, length=20)
    short = sample_pool(model, tokenizer, tmp_path / "short", tokens=40, length=2, prompts="chat")
    assert (short.rows, short.tokens) == (20, 40)


@pytest.mark.parametrize("prompts", ["chat", "mixed"])
def test_a_pool_of_dated_chats_grows_on_a_later_day(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, prompts: Prompts
) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE
    first, later = date(2025, 12, 30), date(2026, 1, 4)
    size = {"length": 10, "prompts": prompts}
    with on_day(first):
        before = sample_pool(model, tokenizer, tmp_path / "grown", tokens=20, **size)
    with on_day(later):
        pool = sample_pool(model, tokenizer, tmp_path / "grown", tokens=40, **size)
        assert chat_opening(tokenizer) not in pool.settings.openings
        new = sample_pool(model, tokenizer, tmp_path / "new", tokens=40, **size)
        assert chat_opening(tokenizer) in new.settings.openings
    assert pool.settings == before.settings
    assert pool.rows == 4
    with on_day(date(2028, 1, 1)), pytest.raises(OutputExists, match="openings"):
        sample_pool(model, tokenizer, tmp_path / "grown", tokens=60, **size)


BOS_TEMPLATE = "{{ bos_token }}" + CHAT_TEMPLATE.replace("<|im_start|>", "")


@pytest.mark.parametrize(
    ("template", "how"),
    [
        (CHAT_TEMPLATE, {}),
        (CHAT_TEMPLATE, {"start": "<|im_start|>"}),
        (SYSTEM + CHAT_TEMPLATE, {"opening": "text"}),
        (BOS_TEMPLATE, {}),
        (BOS_TEMPLATE, {"start": "<|im_start|>"}),  # documents and chats begin with the same token
        ("<|endoftext|>" + BOS_TEMPLATE, {"start": ["<|endoftext|>", "a"]}),
    ],
)
def test_a_mixed_pool_holds_documents_and_chats_in_turn(template: str, how: dict[str, Any], tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer(template)
    chat, rows = chat_opening(tokenizer), 12
    size: dict[str, Any] = {"tokens": rows * 10, "length": 10, "dtype": torch.float32, **how}
    pool = sample_pool(model, tokenizer, tmp_path / "mixed", prompts="mixed", **size)
    documents = sample_pool(model, tokenizer, tmp_path / "documents", **size)
    assert (pool.rows, pool.tokens, pool.settings.prompts) == (rows, rows * 10, "mixed")
    for row in range(rows):
        opening = chat if row % 2 else documents.settings.opening_of(row // 2)
        tokens = pool.tokens_of(row).tolist()
        assert tokens[: len(opening)] == opening
        assert len(tokens) == len(opening) + 10
        assert pool.batch(torch.tensor([row])).targets_BT[0].tolist() == tokens[len(opening) :]
    assert len({tuple(pool.tokens_of(row).tolist()) for row in range(rows)}) == rows
    assert pool.settings.probe == documents.settings.probe
    again = sample_pool(model, tokenizer, tmp_path / "again", prompts="mixed", **size)
    assert [shard["sha256"] for shard in again.shards] == [shard["sha256"] for shard in pool.shards]
    assert sample_pool(model, tokenizer, tmp_path / "mixed", prompts="mixed", **size).settings == pool.settings
    with pytest.raises(OutputExists, match="prompts"):
        sample_pool(model, tokenizer, tmp_path / "mixed", **size)
    # A row's states are those of its text alone: the padding beside shorter openings is not seen.
    for row in (0, 1):
        batch = pool.batch(torch.tensor([row]))
        states = batch.at_targets(hidden_states(model, batch.inputs_BP)).detach()
        torch.testing.assert_close(states, batch.hidden_BTD[0], rtol=1e-4, atol=1e-5)


def test_a_mixed_pool_needs_a_chat_template(model: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        sample_pool(model, make_tokenizer(None), tmp_path, tokens=40, length=20, prompts="mixed")


def probe(**numbers: Any) -> Probe:
    return Probe(**{"entropy": 5.0, "top": "-", "share": 0.1, "noise": [0.0005] * 3, "known": 4.0, **numbers})


SMOLLM2 = {
    "start": probe(share=0.40, noise=[0.0083, 0.306, 0.0016], known=4.40),
    "twice": probe(share=0.40, noise=[0.0083, 0.0005, 0.0102], known=4.48),
    "newline": probe(share=0.03, noise=[0.0031, 0.0006, 0.0006], known=4.60),
    "text": probe(share=0.16, noise=[0.0003, 0.0007, 0.0007], known=3.86),
    "start-text": probe(share=0.18, noise=[0.0651, 0.0009, 0.0006], known=4.30),
}


@pytest.mark.parametrize(
    ("probes", "chosen", "broken"),
    [
        (SMOLLM2, "text", []),
        ({name: replace(numbers, noise=None) for name, numbers in SMOLLM2.items()}, "text", []),
        ({"start": probe(noise=[0.0001, 0.0004, 0.0006], share=0.08)}, "start", []),
        ({"start": probe(noise=[0.03, 0.02, 0.01])}, "start", []),
        ({"start": probe(share=0.9)}, "start", ["90% of the rows"]),
        ({"start": probe(share=0.9), "twice": probe(share=0.2, noise=[0.1, 0.0, 0.0])}, "start", ["90%"]),
        ({"start": probe(share=0.9, noise=[0.1, 0.1, 0.0]), "twice": probe(share=0.9)}, "twice", ["90%"]),
        ({"start": probe(share=0.3), "newline": probe(known=4.26)}, "start", ["30%"]),
        ({"start": probe(share=0.3), "newline": probe(known=4.24)}, "newline", []),
    ],
)
def test_the_rule(probes: dict[str, Probe], chosen: str, broken: list[str]) -> None:
    name, words = best_of(probes)
    assert (name, len(words)) == (chosen, len(broken))
    assert all(part in found for part, found in zip(broken, words, strict=True))


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="keeptune")
    return caplog


SIZE: dict[str, Any] = {"tokens": 12 * 10, "length": 12, "dtype": torch.float32}
START, NEWLINE = 0, make_tokenizer()("\n")["input_ids"][0]


def certain_of(token: int) -> LlamaForCausalLM:
    """A model that predicts one token after every context."""
    model = make_model(tie=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, 0] = 5.0
        model.lm_head.weight[token, 0] = 5.0
    return model


def test_the_choice_is_printed_and_recorded_with_its_numbers(
    tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    pool = sample_pool(make_model(), make_tokenizer(), tmp_path / "plain", **SIZE)
    assert (pool.settings.opening, pool.settings.openings) == ("start", [[START]])
    assert list(pool.settings.probe) == ["start"], "a sound first candidate needs no other"
    assert "rows open with '<|endoftext|>' (start)" in messages.text and "entropy" in messages.text
    numbers = pool.settings.probe["start"]
    with torch.no_grad():
        p_V = make_model()(input_ids=torch.tensor([[START]])).logits[0, -1].softmax(-1)
    assert numbers["share"] == pytest.approx(p_V.max().item(), rel=1e-4)
    assert numbers["entropy"] == pytest.approx(torch.special.entr(p_V).sum().item(), rel=1e-4)
    certain = sample_pool(certain_of(77), make_tokenizer(), tmp_path / "certain", **SIZE)
    assert list(certain.settings.probe) == ["start", "twice", "newline", "text", "start-text"]
    assert certain.settings.opening == "start" and "breaks a bound of the rule" in messages.text
    assert all(numbers["share"] > 0.9 for numbers in certain.settings.probe.values())


@pytest.mark.parametrize(
    ("name", "length", "ends"),
    [("start", 1, 0), ("twice", 2, 0), ("newline", 2, 0), ("text", 14, 0), ("start-text", 14, 0)],
)
def test_each_opening_can_be_asked_for(tmp_path: Path, name: Any, length: int, ends: int) -> None:
    pool = sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", opening=name, **SIZE)
    openings = pool.settings.openings
    assert {len(opening) for opening in openings} == {length} and {opening[-1] for opening in openings} == {ends}
    assert len({tuple(opening) for opening in openings}) == (1 if "text" not in name else 64)
    assert {opening[0] for opening in openings} == {NEWLINE if name in ("newline", "text") else START}
    assert (pool.rows, pool.tokens) == (10, 120), "targets are counted, openings are not"
    for row in range(pool.rows):
        tokens = pool.tokens_of(row).tolist()
        assert tokens[:length] == pool.settings.opening_of(row) and len(tokens) == length + 12
    grown = sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", **{**SIZE, "tokens": 150})
    assert grown.settings == pool.settings, "auto goes on as the pool began"
    with pytest.raises(OutputExists, match="opening"):
        sample_pool(
            make_model(), make_tokenizer(), tmp_path / "pool", opening="twice" if name == "start" else "start", **SIZE
        )
    again = sample_pool(make_model(), make_tokenizer(), tmp_path / "again", opening=name, **SIZE)
    assert again.shards == grown.shards[:1], "same seed, same bytes"


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "mamba", "rwkv", "gemma3_text", "qwen3_next"])
def test_every_kind_of_cache_reads_an_opening_before_it_samples(name: str, tmp_path: Path) -> None:
    model = make_model() if name == "llama" else family_model(name)
    pool = sample_pool(model, make_tokenizer(), tmp_path, opening="text", **{**SIZE, "tokens": 64 * 24, "length": 24})
    tokens_RW = pool.batch(torch.arange(64)).tokens_BW
    assert abs(sampling_z(tokens_RW, model, torch.float32, 24, 1.0)) < 3
    engine = TorchEngine(model, rows=8)
    openings = pool.settings.openings[:8]
    sampled_RW = engine.sample(8, 5, openings, seed=3)
    with torch.no_grad():
        log_p_RPV = model(input_ids=sampled_RW[:, :-1]).logits[:, -5:].log_softmax(-1)
    own_RT = log_p_RPV.gather(2, sampled_RW[:, -5:, None])[..., 0]
    torch.testing.assert_close(engine.log_probs_CT, own_RT, rtol=0, atol=2e-3)


def test_rows_whose_openings_differ_in_length(tmp_path: Path) -> None:
    pool = ragged_pool(tmp_path / "pool")
    batch = pool.batch(torch.tensor([3, 0, 6, 1]))
    assert (batch.length, batch.tokens_BW.shape, batch.targets_BT.shape) == (12, (4, 18), (4, 12))
    alone = [pool.batch(torch.tensor([row])) for row in (3, 0, 6, 1)]
    assert [one.tokens_BW.shape[1] for one in alone] == [18, 13, 14, 15], "no padding that no row needs"
    for place, one in enumerate(alone):
        assert torch.equal(batch.targets_BT[place], one.targets_BT[0])
        assert torch.equal(one.targets_BT[0], one.tokens_BW[0, -12:])
    assert [part.tokens_BW.shape[1] for part in batch.split(2)] == [18, 15]
    assert torch.equal(torch.cat([part.targets_BT for part in batch.split(3)]), batch.targets_BT)
    with torch.no_grad():
        model = make_model(seed=1)
        states_ND = batch.at_targets(hidden_states(model, batch.inputs_BP))
        own_ND = torch.cat([hidden_states(model, one.inputs_BP)[0, -12:] for one in alone])
    torch.testing.assert_close(states_ND, own_ND, rtol=0, atol=1e-5)
    assert abs(sampling_z(pool.batch(torch.arange(0, 10, 4)).tokens_BW, make_model(), torch.float32, 12, 1.0)) < 4


def test_every_teacher_says_the_same_of_openings_of_several_tokens(tmp_path: Path) -> None:
    base, tuned = make_model(), make_model(seed=1)
    topk = ragged_pool(tmp_path / "topk", predictions="topk", top_k=258)
    hidden = ragged_pool(tmp_path / "hidden")
    rows = torch.tensor([1, 2, 3, 0, 7])
    batch = hidden.batch(rows)
    assert torch.equal(batch.tokens_BW, topk.batch(rows).tokens_BW)
    adapted = get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    teachers = {
        "hidden": CachedHidden(frozen_head(base, torch.float32)),
        "live": LiveCopy(base, torch.float32),
    }
    with torch.no_grad():
        sums = {name: replay_sum(tuned, batch, teacher).item() for name, teacher in teachers.items()}
        sums["topk"] = replay_sum(tuned, topk.batch(rows), CachedTopK()).item()
        alone = [replay_sum(tuned, hidden.batch(row[None]), teachers["hidden"]).item() for row in rows]
        of_adapter = replay_sum(adapted, batch, AdapterOff(frozen_head(adapted, torch.float32))).item()
        of_live = replay_sum(adapted, batch, teachers["live"]).item()
        log_p, log_q = (m(input_ids=batch.inputs_BP).logits.log_softmax(-1) for m in (base, tuned))
        kl_BP = (log_p.exp() * (log_p - log_q)).sum(-1)
        lengths = [len(RAGGED[row % 4]) for row in rows.tolist()]
        dense = sum(kl_P[n - 1 : n + 11].sum().item() for kl_P, n in zip(kl_BP, lengths, strict=True))
    assert sums == pytest.approx(dict.fromkeys(sums, dense), rel=2e-3)
    assert sums["hidden"] == pytest.approx(sums["live"], rel=1e-5) == pytest.approx(sum(alone), rel=1e-5)
    assert of_adapter == pytest.approx(of_live, rel=1e-5)


def test_a_text_opens_as_samples_do(tmp_path: Path) -> None:
    texts = ["abcdefghij" * 5, "klmnopqrst" * 4]
    how: dict[str, Any] = {"length": 12, "dtype": torch.float32}
    plain = text_pool(make_model(), make_tokenizer(), tmp_path / "plain", texts, **how)
    pool = text_pool(make_model(), make_tokenizer(), tmp_path / "text", texts, opening="text", **how)
    assert plain.settings.openings == [[START]] and len(pool.settings.openings) == 64
    assert torch.equal(plain.batch(torch.arange(7)).targets_BT, pool.batch(torch.arange(7)).targets_BT)
    for row in range(7):
        assert pool.tokens_of(row)[:14].tolist() == pool.settings.openings[row]
    batch = pool.batch(torch.arange(7))
    own = batch.at_targets(hidden_states(make_model(), batch.inputs_BP)).detach()
    torch.testing.assert_close(batch.hidden_BTD.flatten(0, 1), own, rtol=0, atol=1e-5)


def test_rows_are_opened_in_turn() -> None:
    rows_RT1 = torch.arange(15).reshape(3, 5) + 100
    batch = open_rows(rows_RT1, [[1], [2, 3, 4]], range(1, 3))
    assert batch.tokens_BW.tolist() == [[2, 3, 4, 106, 107, 108, 109], [1, 111, 112, 113, 114, 0, 0]]
    assert batch.targets_BT.tolist() == rows_RT1[1:, 1:].tolist()


@pytest.mark.parametrize("chat", [False, True])
def test_pools_of_format_1_are_read(tmp_path: Path, chat: bool) -> None:
    """Their rows held a prediction for every position after the first; a chat's opening was counted as targets."""
    how: dict[str, Any] = {"prompts": "chat"} if chat else {}
    now = sample_pool(make_model(), make_tokenizer(), tmp_path / "now", **SIZE, **how)
    opening = now.settings.openings[0]
    old = tmp_path / "old"
    old.mkdir()
    tokens_RW = torch.stack([now.tokens_of(row) for row in range(now.rows)])
    states_RPD = hidden_states(make_model(), tokens_RW[:, :-1]).detach()
    save_file({"tokens": tokens_RW.int(), "hidden": states_RPD}, old / "shard-00000.safetensors")
    manifest = json.loads((now.folder / "manifest.json").read_text())
    manifest["format"] = 1
    del manifest["checksum"]
    manifest["shards"] = [
        {"file": "shard-00000.safetensors", "rows": now.rows, "sha256": sha256_file(old / "shard-00000.safetensors")}
    ]
    for name in ("opening", "openings", "probe"):
        del manifest["settings"][name]
    manifest["settings"] |= {"opening": opening[1:], "more_starts": [], "length": 12 + len(opening) - 1}
    (old / "manifest.json").write_text(json.dumps(manifest))
    read = ReplayPool.open(old)
    assert read.settings == replace(now.settings, probe={})
    assert torch.equal(read.batch(torch.arange(10)).targets_BT, now.batch(torch.arange(10)).targets_BT)
    torch.testing.assert_close(read.batch(torch.arange(10)).hidden_BTD, now.batch(torch.arange(10)).hidden_BTD)


def test_without_a_separator_rows_open_with_a_newline(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    named = make_tokenizer().backend_tokenizer.to_str().replace("<|endoftext|>", "<|unknown|>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(named), pad_token="<|im_end|>")
    pool = sample_pool(make_model(), tokenizer, tmp_path / "pool", **SIZE)
    assert (pool.settings.opening, pool.settings.openings) == ("newline", [[NEWLINE]])
    assert "rows open with a newline" in messages.text
    with pytest.raises(ConfigError, match="neither a token that starts a document"):
        sample_pool(make_model(), tokenizer, tmp_path / "text", opening="text", **SIZE)


def test_openings_that_do_not_fit_the_positions_are_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=259, n_positions=33, n_embd=16, n_layer=1, n_head=2)).eval()
    size = {**SIZE, "length": 32}
    fits = sample_pool(gpt2, make_tokenizer(), tmp_path / "fits", opening="twice", **size)
    assert fits.settings.openings == [[START, START]]
    with pytest.raises(ConfigError, match="'text' does not fit rows of 32 tokens"):
        sample_pool(gpt2, make_tokenizer(), tmp_path / "text", opening="text", **size)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"opening": "texts"}, "unknown opening 'texts'"),
        ({"opening": "text", "prompts": "chat"}, "chats open as the chat template says"),
        ({"opening": "text", "start": [3, 4]}, "several start tokens open rows in turn"),
    ],
)
def test_openings_that_cannot_be_meant_are_refused(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", **SIZE, **how)
    assert not (tmp_path / "pool").exists()


def test_padding_is_never_read() -> None:
    tokens_BW = torch.tensor([[1, 2, 3, 4, 0, 0], [1, 9, 9, 2, 3, 4]])
    batch = opened_batch(tokens_BW, torch.tensor([1, 3]), 3)
    assert batch.targets_BT.tolist() == [[2, 3, 4]] * 2
    assert batch.at_targets(torch.arange(10).view(2, 5, 1)).flatten().tolist() == [0, 1, 2, 7, 8, 9]


@pytest.mark.parametrize(
    ("ids", "labels", "opened"),
    [
        ([0, 5, 6], [0, 5, 6], ([9, 8, 0, 5, 6], [-100, -100, -100, 5, 6])),  # a text's first window
        ([4, 5, 6], [4, 5, 6], None),  # a later window
        ([0, 5, 6], [-100, -100, 6], None),  # a completion after a prompt, or a chat
    ],
)
def test_only_what_begins_a_text_is_opened(ids: list[int], labels: list[int], opened: Any) -> None:
    row = {"input_ids": ids, "labels": labels, "document": "d"}
    later = {"input_ids": [0, 4, 5, 6], "labels": [-100, -100, 5, 6], "document": "d"}
    assert open_windows([row], 0, [[0]]) == [later if ids[0] == 4 else row]
    wanted = row if opened is None else {"input_ids": opened[0], "labels": opened[1], "document": "d"}
    assert open_windows([row] * 3, 0, [[9, 8, 0]]) == [wanted] * 3


def test_a_base_that_predicts_nan_is_refused_in_words(tmp_path: Path) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.norm.weight[0] = torch.nan
    with pytest.raises(ConfigError, match="predictions are NaN"):
        sample_pool(broken, make_tokenizer(), tmp_path / "pool", **SIZE)
    assert not (tmp_path / "pool").exists()


def test_openings_after_which_noise_moves_the_prediction_far_are_left_out() -> None:
    model = make_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)  # so that small changes grow on the way
    openings = torch.randint(3, 259, (64, 5), generator=torch.Generator().manual_seed(1)).tolist()
    log_p_RV = torch.log_softmax(model(torch.tensor(openings)).logits[:, -1], dim=-1).detach()
    moved = []
    for seed in range(3):
        shaken, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
        for layer in shaken.modules():
            if isinstance(layer, torch.nn.Linear) and layer.out_features != 259:
                noise = 0.03 * torch.randn(layer.out_features, generator=generator)
                layer.forward = partial(
                    lambda inner, noise, x: inner(x) + noise * inner(x).square().mean(-1, True).sqrt(),
                    layer.forward,
                    noise,
                )
        log_q_RV = torch.log_softmax(shaken(torch.tensor(openings)).logits[:, -1], dim=-1)
        moved.append((log_p_RV.exp() * (log_p_RV - log_q_RV)).sum(-1))
    most_R = torch.stack(moved).amax(0)
    expected = [opening for opening, most in zip(openings, most_R, strict=True) if most <= 3 * most_R.median()]
    assert 0 < len(expected) < 64
    assert Prober(model, make_tokenizer(), 0).steady(openings) == expected
    assert not any(module._forward_hooks for module in model.modules())
