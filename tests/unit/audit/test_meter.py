"""The meter against a direct computation with torch's and numpy's own functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from keeptune.audit import meter
from keeptune.audit.meter import MEASURES
from keeptune.audit.safety.detectors import opening_log_odds
from keeptune.audit.verdict import noise_floor
from keeptune.data.encode import encode
from keeptune.errors import ConfigError, SourceError
from keeptune.models.modeling import training_dtype
from keeptune.models.quantized import has_packed_head
from keeptune.models.vocabulary import vocabularies
from keeptune.objective import Head
from keeptune.objective import drift as tokens
from keeptune.objective.drift import Tiling, token_drift
from tests.helpers.models import make_model, make_tokenizer

measure = partial(meter.measure, dtype=torch.float32)


def make_rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    rows = []
    for document in range(5):
        for length in (9 + document, 21):
            ids = torch.randint(0, 259, (length,), generator=generator).tolist()
            labels = [-100 if position < document else token for position, token in enumerate(ids)]
            rows.append({"input_ids": ids, "labels": labels, "document": f"d{document}"})
    return rows


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "BATCH_TOKENS", 60)
    monkeypatch.setattr(tokens, "CPU_TILING", Tiling(chunk_tokens=7, block_tokens=3, tile_words=64))
    monkeypatch.setattr(tokens, "_GROUP_WORDS", 16)


@torch.no_grad()
def direct(base: torch.nn.Module, tuned: torch.nn.Module, row: dict[str, Any]) -> dict[str, float]:
    ids = torch.tensor([row["input_ids"]])
    keep = torch.tensor(row["labels"])[1:] != -100
    p, q = (model(input_ids=ids).logits[0, :-1][keep].double() for model in (base, tuned))
    target = torch.tensor(row["labels"])[1:][keep]
    soft = cross_entropy(q, p.softmax(-1), reduction="sum")
    entropy = cross_entropy(p, p.softmax(-1), reduction="sum")
    values = {
        "kl": kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True),
        "soft_ce": soft,
        "entropy": entropy,
        "l_f": cross_entropy(q, p.argmax(-1), reduction="sum"),
        "l_f_base": cross_entropy(p, p.argmax(-1), reduction="sum"),
        "ce": cross_entropy(q, target, reduction="sum"),
        "ce_base": cross_entropy(p, target, reduction="sum"),
        "agreement": (p.argmax(-1) == q.argmax(-1)).double().sum(),
    }
    return {name: float(value) for name, value in values.items()}


def test_every_measure_equals_its_definition() -> None:
    base, tuned = make_model(), make_model(seed=1)
    rows = make_rows()
    drift = measure(base, tuned, rows)
    assert drift.documents == sorted(drift.documents, key=drift.documents.index)
    for position, name in enumerate(drift.documents):
        of_document = [row for row in rows if row["document"] == name]
        assert drift.tokens_D[position] == sum(label != -100 for row in of_document for label in row["labels"][1:])
        sums = [direct(base, tuned, row) for row in of_document]
        for column in MEASURES:
            expected = sum(one[column] for one in sums)
            assert drift.column(column)[position] == pytest.approx(expected, rel=1e-4, abs=1e-4), (name, column)


def test_soft_ce_minus_its_floor_is_the_kl_and_rises_are_differences() -> None:
    drift = measure(make_model(), make_model(seed=1), make_rows())
    np.testing.assert_allclose(drift.column("soft_ce") - drift.column("entropy"), drift.column("kl"), rtol=1e-4)
    summary = drift.summary()["measures"]
    assert summary["l_f_rise"]["value"] == pytest.approx(summary["l_f"]["value"] - summary["l_f_base"]["value"])
    assert summary["ce_change"]["value"] == pytest.approx(summary["ce"]["value"] - summary["ce_base"]["value"])


def test_a_model_does_not_drift_from_itself() -> None:
    drift = measure(make_model(), make_model(), make_rows())
    assert not drift.column("kl").any()
    assert not drift.column("l_f_rise").any()
    assert drift.interval("agreement").value == 1.0


def test_padding_and_batching_do_not_change_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = make_model(), make_model(seed=1)
    batched = measure(base, tuned, make_rows())
    monkeypatch.setattr(meter, "BATCH_TOKENS", 1)
    alone = measure(base, tuned, make_rows())
    np.testing.assert_allclose(batched.sums_DM, alone.sums_DM, rtol=1e-5, atol=1e-5)


def test_dropout_is_off_while_measuring() -> None:
    base, tuned = make_model().train(), make_model(seed=1).train()
    for model in (base, tuned):
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.5
    assert np.array_equal(measure(base, tuned, make_rows()).sums_DM, measure(base, tuned, make_rows()).sums_DM)


def test_rows_without_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        measure(make_model(), make_model(), [{"input_ids": [1, 2], "labels": [-100, -100], "document": "d"}])


AS_SHIPPED = tokens.CPU_TILING
Logits = tuple[torch.Tensor, torch.Tensor]


def from_logits(tuned_NV: torch.Tensor, base_NV: torch.Tensor, target_N: torch.Tensor) -> dict[str, torch.Tensor]:
    """The measures of given logits: the head of an identity matrix hands them through unrounded."""
    head = Head(weight_VD=torch.eye(base_NV.shape[1], dtype=base_NV.dtype))
    values_NM = token_drift(tuned_NV, head, base_NV, head, target_N, base_NV.dtype)
    return dict(zip(MEASURES, values_NM.T, strict=True))


def oracle(tuned_NV: torch.Tensor, base_NV: torch.Tensor, target_N: torch.Tensor) -> dict[str, torch.Tensor]:
    tuned, base = tuned_NV.double().log_softmax(-1), base_NV.double().log_softmax(-1)
    top_N1, target_N1 = base.argmax(-1, keepdim=True), target_N[:, None]
    return {
        "kl": kl_div(tuned, base, reduction="none", log_target=True).sum(-1),
        "soft_ce": cross_entropy(tuned, base.exp(), reduction="none"),
        "entropy": cross_entropy(base, base.exp(), reduction="none"),
        "l_f": -tuned.gather(1, top_N1)[:, 0],
        "l_f_base": -base.gather(1, top_N1)[:, 0],
        "ce": -tuned.gather(1, target_N1)[:, 0],
        "ce_base": -base.gather(1, target_N1)[:, 0],
        "agreement": (tuned.argmax(-1) == top_N1[:, 0]).double(),
    }


def draw_logits(vocabulary: int, size: float, drift: float, shift: float = 0.0, tokens: int = 8) -> Logits:
    generator = torch.Generator().manual_seed(vocabulary)
    base_NV = size * torch.randn(tokens, vocabulary, generator=generator)
    return base_NV + shift + drift * torch.randn(tokens, vocabulary, generator=generator), base_NV


@pytest.mark.parametrize("vocabulary", [1, 15, 63, 64, 65, 128, 259])
@pytest.mark.parametrize("rows", [1, 7, 8, 17])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_tiles_join_to_the_whole_vocabulary(vocabulary: int, rows: int, size: float) -> None:
    tuned_NV, base_NV = draw_logits(vocabulary, size, 0.3 * size, tokens=rows)
    target_N = torch.arange(rows) * 37 % vocabulary
    measured, expected = from_logits(tuned_NV, base_NV, target_N), oracle(tuned_NV, base_NV, target_N)
    for name in MEASURES:
        torch.testing.assert_close(measured[name], expected[name], rtol=2e-6, atol=2e-6, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("shift", [0.0, 0.7, 1e4])
@pytest.mark.parametrize("drift", [1e-1, 4.5e-3])
def test_a_kl_of_a_hundred_thousandth_nat_is_measured(
    drift: float, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CPU_TILING", AS_SHIPPED)
    tuned_NV, base_NV = draw_logits(5000, 3.0, drift, shift, tokens=200)
    target_N = torch.zeros(200, dtype=torch.int64)
    measured, expected = from_logits(tuned_NV, base_NV, target_N), oracle(tuned_NV, base_NV, target_N)
    assert expected["kl"].mean() == pytest.approx(drift**2 / 2, rel=0.1)
    torch.testing.assert_close(measured["kl"], expected["kl"], rtol=1e-4, atol=4e-7)
    assert measured["kl"].mean() == pytest.approx(float(expected["kl"].mean()), rel=1e-3)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_the_same_logits_have_a_kl_of_exactly_zero(size: float) -> None:
    base_NV = draw_logits(259, size, 0.0)[1]
    measured = from_logits(base_NV.clone(), base_NV, torch.zeros(8, dtype=torch.int64))
    assert not measured["kl"].any()
    assert torch.equal(measured["l_f"], measured["l_f_base"])
    assert measured["agreement"].all()


@pytest.mark.parametrize("settings", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_heads_of_every_kind(settings: dict[str, float], bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    hidden, heads, logits = [draw(9, 16), draw(9, 16)], [], []
    for states in hidden:
        heads.append(Head(weight_VD=draw(131, 16), bias_V=draw(131) if bias else None, **settings))
        raw = states.to(dtype).double() @ heads[-1].weight_VD.to(dtype).double().T
        logits.append(heads[-1].finish(raw))
    target_N = torch.arange(9) * 14
    values_NM = token_drift(hidden[0], heads[0], hidden[1], heads[1], target_N, dtype)
    expected = torch.stack(list(oracle(logits[0], logits[1], target_N).values()), dim=1)
    torch.testing.assert_close(values_NM, expected, rtol=1e-5, atol=1e-5)


def test_ties_go_to_the_first_token_and_count_as_agreement() -> None:
    base_NV = torch.zeros(2, 259)
    base_NV[0, [70, 71, 200]] = 2.0
    tuned_NV = torch.zeros(2, 259)
    tuned_NV[0, [3, 70]] = 1.0
    tuned_NV[1, 258] = 1.0
    measured = from_logits(tuned_NV, base_NV, torch.tensor([0, 258]))
    assert measured["agreement"].tolist() == [1.0, 0.0]
    at_first = -tuned_NV.double().log_softmax(-1)[[0, 1], [70, 0]]
    torch.testing.assert_close(measured["l_f"], at_first, rtol=1e-6, atol=1e-6)


def test_vocabularies_of_different_sizes_are_refused() -> None:
    # 128 against 64 entries: the tiles of the smaller vocabulary fit the larger one.
    hidden_ND, target_N = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="64 entries"):
        token_drift(
            hidden_ND, Head(weight_VD=torch.zeros(128, 4)), hidden_ND, Head(weight_VD=torch.zeros(64, 4)), target_N
        )


def test_a_batch_without_targets_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "BATCH_TOKENS", 1)
    without = {"input_ids": [5, 6, 7], "labels": [-100] * 3, "document": "empty"}
    base, tuned = make_model(vocab=64), make_model(seed=1, vocab=64)
    rows = [{**row, "input_ids": [i % 64 for i in row["input_ids"]], "labels": row["labels"]} for row in make_rows()]
    rows = [{**row, "labels": [-100 if label < 0 else label % 64 for label in row["labels"]]} for row in rows]
    drift = measure(base, tuned, [*rows, without])
    assert "empty" not in drift.documents
    assert np.array_equal(drift.sums_DM, measure(base, tuned, rows).sums_DM)


def test_the_meter_reads_the_logits_of_the_dtype_that_is_given() -> None:
    base, tuned = make_model(), make_model(seed=1)
    row = make_rows()[1]
    narrow = measure(base, tuned, [row], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = direct(base, tuned, row)
    for name in ("kl", "soft_ce", "ce", "l_f_base"):
        assert narrow.column(name)[0] == pytest.approx(expected[name], rel=5e-3), name


def test_left_alone_it_is_the_dtype_that_training_multiplies_in() -> None:
    base, tuned = make_model(), make_model(seed=1)
    for widen in (torch.float32, torch.float64):
        pair = base.to(widen), tuned.to(widen)
        plain = meter.measure(*pair, make_rows())
        assert np.array_equal(plain.sums_DM, measure(*pair, make_rows(), dtype=training_dtype(base)).sums_DM)
    np.testing.assert_allclose(plain.sums_DM, measure(base.float(), tuned.float(), make_rows()).sums_DM, rtol=1e-4)


def test_plain_texts_are_measured_as_their_rows() -> None:
    base, tuned, tokenizer = make_model(), make_model(seed=1), make_tokenizer()
    texts = ["One text.", "Another one, which is longer than a window of tokens.", "é"]
    dataset = Dataset.from_dict({"text": texts, "document": ["text 1", "text 2", "text 3"]})
    rows = list(encode(dataset, tokenizer, max_length=20, document_start=0, append_eos=False))
    of_texts = measure(base, tuned, texts, tokenizer=tokenizer, max_length=20)
    # This model can start at its start token, so that every window of a text does.
    later = [row for row in rows if row["input_ids"][0] != 0]
    for row in later:
        row["input_ids"], row["labels"] = [0, *row["input_ids"]], [-100, -100, *row["labels"][1:]]
    assert len(later) == 2
    of_rows = measure(base, tuned, rows)
    assert np.array_equal(of_texts.sums_DM, of_rows.sums_DM)
    assert of_texts.documents == of_rows.documents
    assert sorted(of_texts.documents) == ["text 1", "text 2", "text 3"]
    assert of_texts.tokens_D.sum() == sum(len(text.encode()) for text in texts)


def test_plain_texts_that_cannot_be_encoded_are_refused() -> None:
    pair = make_model(), make_model(seed=1)
    with pytest.raises(ConfigError, match="plain texts need a tokenizer") as refused:
        measure(*pair, ["One text."])
    assert "tokenizer=" in refused.value.fix
    with pytest.raises(ConfigError, match="one string, not a list"):
        measure(*pair, "One text.", tokenizer=make_tokenizer())
    with pytest.raises(SourceError, match="text 2 is dict"):
        measure(*pair, ["One text.", make_rows()[0]], tokenizer=make_tokenizer())


def test_every_row_comes_with_the_measures_of_its_targets() -> None:
    base, tuned = make_model(), make_model(seed=1)
    rows = [*make_rows(), {"input_ids": [5, 6, 7], "labels": [-100] * 3, "document": "empty"}]
    seen: list[tuple[dict[str, Any], np.ndarray]] = []
    measure(base, tuned, rows, on_tokens=lambda row, values_NM: seen.append((row, values_NM)))
    assert len(seen) == len(rows)
    for row in rows:
        values_NM = next(values for taken, values in seen if taken is row)
        assert values_NM.shape == (sum(label != -100 for label in row["labels"][1:]), len(MEASURES))
        if len(values_NM):
            expected = direct(base, tuned, row)
            for column, name in enumerate(MEASURES):
                assert values_NM[:, column].sum() == pytest.approx(expected[name], rel=1e-4, abs=1e-4), name


@pytest.mark.parametrize("quantised", ["tuned", "base", "both"])
def test_a_quantized_output_layer_is_read_by_the_models_own_logits(quantised: str) -> None:
    base, tuned = make_model(seed=0, tie=False), make_model(seed=1, tie=False)
    packed = {nn.Linear}
    if quantised != "tuned":
        base = torch.ao.quantization.quantize_dynamic(base, packed)
    if quantised != "base":
        tuned = torch.ao.quantization.quantize_dynamic(tuned, packed)
    assert has_packed_head(tuned) == (quantised != "base")
    ids = torch.arange(3, 63).view(3, 20).tolist()
    rows: Any = [{"input_ids": row, "labels": row, "document": str(place)} for place, row in enumerate(ids)]
    drift = measure(base, tuned, rows, dtype=torch.float32)
    with torch.no_grad():
        # Dynamic quantization scales by all activations at once, so they have to be the same ones.
        input_BT = torch.tensor(ids)[:, :-1]
        base_BTV, tuned_BTV = (model(input_ids=input_BT).logits.double() for model in (base, tuned))
    p_BTV, q_BTV = base_BTV.log_softmax(dim=-1), tuned_BTV.log_softmax(dim=-1)
    kl = (p_BTV.exp() * (p_BTV - q_BTV)).sum(dim=(1, 2))
    assert drift.column("kl") == pytest.approx(kl.numpy(), rel=1e-5)
    assert drift.tokens_D.tolist() == [19] * 3
    floor = noise_floor(base, rows, dtype=torch.float32)["kl"]
    assert floor.value < 0.1
    tokenizer = make_tokenizer()
    assert vocabularies(base, tuned, tokenizer, tokenizer).same
    assert len(opening_log_odds(tuned, tokenizer, ["hello"], "")) == 1
