"""Which tokens two models share, and predictions over these alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from keeptune.audit.meter import measure
from keeptune.audit.texts import without_tokens
from keeptune.errors import ConfigError
from keeptune.models.vocabulary import check_vocabularies, share_vocabulary, vocabularies
from tests.helpers.models import make_model, make_tokenizer

ROWS = [{"input_ids": [1, 40, 17, 99], "labels": [1, 40, 17, 99], "document": "a"}]


def test_the_same_tokens_are_the_same() -> None:
    found = vocabularies(make_model(), make_model(seed=1), make_tokenizer(), make_tokenizer())
    assert found.same
    check_vocabularies(found)


def test_tokens_that_differ_are_named() -> None:
    wide, renamed = make_model(vocab=264), make_tokenizer()
    renamed.add_special_tokens({"additional_special_tokens": [f"<tool{n}>" for n in range(5)]})
    found = vocabularies(make_model(), wide, make_tokenizer(), renamed)
    assert (found.words, found.differing) == (259, {259 + n: (None, f"<tool{n}>") for n in range(5)})
    with pytest.raises(ConfigError, match=r"259 and 264 outputs; tokens that differ, 259: None and '<tool0>'"):
        check_vocabularies(found)
    found = vocabularies(wide, wide, make_tokenizer(), renamed)
    with pytest.raises(ConfigError, match=r"259: None and '<tool0>', .* 263") as refused:
        check_vocabularies(found)
    assert "--shared-vocabulary" in refused.value.fix


def test_shared_predictions_are_those_among_the_shared_tokens() -> None:
    base, tuned = make_model(vocab=264), make_model(seed=1)
    inputs = torch.tensor([ROWS[0]["input_ids"]])
    with torch.no_grad():
        expected = [model(input_ids=inputs).logits[0, :3, :259].double().log_softmax(-1) for model in (base, tuned)]
    found = vocabularies(base, tuned, make_tokenizer(), make_tokenizer())
    share_vocabulary(base, tuned, found)
    kl = float(kl_div(expected[1], expected[0], log_target=True, reduction="sum"))
    assert measure(base, tuned, ROWS).column("kl")[0] == pytest.approx(kl, rel=0.02)
    assert vocabularies(base, tuned, make_tokenizer(), make_tokenizer()).same


def test_models_of_two_tokenizers_share_nothing() -> None:
    turned = make_tokenizer()
    found = vocabularies(make_model(), make_model(), make_tokenizer(), turned)
    differing = {index: (f"a{index}", f"b{index}") for index in range(200)}
    with pytest.raises(ConfigError, match=r"195 more.*different tokens|different tokens.*195 more"):
        share_vocabulary(make_model(), make_model(), type(found)(words=259, differing=differing, sizes=(259, 259)))


def test_rows_with_other_tokens_are_left_out() -> None:
    assert without_tokens(ROWS, {3, 4}, 100) == ROWS
    assert without_tokens(ROWS, {40}, 100) == []
    assert without_tokens(ROWS, set(), 99) == []
