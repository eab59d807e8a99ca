"""Readings of chat models against each other, unit by unit; a run that ends where it has learned enough; L_f."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.chat import instructed, kept
from common.small import readings
from common.small.corpus import Corpus
from common.stats import over_seeds
from keeptune.storage import append_line
from tests.helpers.models import make_model


def row(method: str, reading: str, unit: int, **values: Any) -> dict[str, Any]:
    return {"method": method, "seed": 0, "reading": reading, "unit": unit, **values}


# Unit, tokens and drift of twelve documents.
TEXTS = [(unit, 300 if unit % 2 else 100, 0.3 if unit % 2 else 0.1) for unit in range(12)]


def test_drifts_are_compared_by_tokens_whatever_the_order_of_rows() -> None:
    rows = [row("plain", "chat", unit, tokens=tokens, kl=kl) for unit, tokens, kl in TEXTS]
    rows += [row("kl", "chat", unit, tokens=tokens, kl=kl / 10) for unit, tokens, kl in reversed(TEXTS)]
    assert kept.mean(rows, "plain", "chat", "kl").value == pytest.approx(0.25)
    ours = kept.ratio(rows, "kl", "plain", "chat")
    # A tenth in every document: whatever is drawn, so is the ratio.
    assert ours[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert ours.units == 12
    few = kept.ratio([one for one in rows if one["unit"] < 11], "kl", "plain", "chat")
    assert few[1:] == (None, None, 11)


def test_with_several_seeds_intervals_are_over_seeds() -> None:
    rows = [
        row(method, "chat", unit, tokens=100, kl=kl * (1 + seed)) | {"seed": seed}
        for method, kl in (("plain", 0.1), ("kl", 0.02))
        for seed in (0, 1, 2)
        for unit in (0, 1)
    ]
    assert kept.mean(rows, "plain", "chat", "kl")[:3] == pytest.approx(over_seeds([0.1, 0.2, 0.3])[:3])
    assert kept.ratio(rows, "kl", "plain", "chat").units == 3
    assert kept.claim(rows, "it drifts", "drift", kept.mean(rows, "kl", "chat", "kl"), above=0.0).runs == 3


def test_answers_are_compared_item_by_item() -> None:
    base = ["A", "B", "C", "D"]
    answers = {"plain": "ABDD", "kl": "ABCD"}
    rows = [
        row(method, "arc", unit, right="A", chosen=chosen, base_chosen=base[unit])
        for method, letters in answers.items()
        for unit, chosen in enumerate(letters)
    ]
    assert kept.difference(rows, "kl", "plain", "arc", kept.same_answer).value == 0.25
    assert kept.difference(rows, "kl", "plain", "arc", kept.right_answer).value == 0.0
    shares = kept.counted(rows, "plain", kept.same_answer)
    assert shares is not None
    assert shares.value == 0.75
    assert kept.counted(rows, "none", kept.same_answer) is None


@pytest.mark.parametrize(("loss", "stops"), [(1.31, False), (1.29, True)])
def test_a_run_ends_where_it_has_learned_enough(tmp_path: Path, loss: float, stops: bool) -> None:
    for step, value in ((0, 2.0), (5, loss)):
        append_line(tmp_path / "runs.jsonl", f'{{"step": {step}, "L_ft": {value}}}')
    ends = instructed.Learned(0.7)
    args = SimpleNamespace(output_dir=str(tmp_path))
    for step, asked in ((6, False), (5, stops)):
        control = SimpleNamespace(should_training_stop=False)
        ends.on_step_end(args, SimpleNamespace(global_step=step), control)
        assert control.should_training_stop is asked


def test_l_f_is_the_cross_entropy_against_the_bases_likeliest_token(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_RT1 = torch.randint(200, (3, 9), generator=generator)
    monkeypatch.setattr(readings, "corpus", lambda *_: Corpus(train_RT1=rows_RT1, held_out_RT1=rows_RT1))
    base, tuned = make_model(), make_model()
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    reader = readings.Reader(base, {"eval_rows": 3, "reads_l_f": True})
    of_base, of_tuned = reader.read(base), reader.read(tuned)
    with torch.no_grad():
        first_RT = base(input_ids=rows_RT1[:, :-1]).logits.argmax(-1)
        log_probs_RTV = tuned(input_ids=rows_RT1[:, :-1]).logits.log_softmax(-1)
    expected = -log_probs_RTV.gather(-1, first_RT[..., None]).mean().item()
    assert of_tuned["l_f"] == pytest.approx(expected, abs=2e-5)
    assert of_tuned["l_f_base"] == of_base["l_f_base"] == pytest.approx(of_base["l_f"], abs=2e-5)
    assert "l_f" not in readings.Reader(base, {"eval_rows": 3}).read(base)
