"""What the experiments that have not run read their claims from, on rows whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from answers_kept import plot as answers_kept_plot
from answers_kept.cells import choices
from answers_kept.plot import agreement, hidden, odds, refused
from common.chat import minutes
from common.small.curves import CHOOSING_SEED, ratios, read_where_chosen, steps_of
from equal_minutes.plot import foretold
from frontier_distance.plot import distance, frontier
from keeptune.audit.tasks.items import Item
from keeptune.audit.tasks.scoring import choose, score_choices
from lora_embeddings.plot import at_the_edge, chosen_rate
from ntp_or_kl.plot import at_the_same_cost
from pool_sizes.plot import needed

Row = dict[str, Any]


def of_run(seed: int, new_loss: float, forgotten: float, **setting: Any) -> list[Row]:
    """A run of two readings, from a new loss of 6 on."""
    about = {"seed": seed, "base_old_loss": 3.0, "target": 9.0, "length": 64, "parameters": 1000, **setting}
    return [
        {**about, "step": 0, "new_loss": 6.0, "old_loss": 3.0},
        {**about, "step": 100, "new_loss": new_loss, "old_loss": 3.0 + forgotten},
    ]


@pytest.mark.parametrize(("end", "target"), [(3.41, 3.45), (3.45, 3.45), (3.4501, 3.5)])
def test_the_choosing_seed_sets_the_target_and_is_not_reported(end: float, target: float) -> None:
    rows = of_run(9, end, 0.1, width=48) + of_run(9, 3.9, 0.1, width=96) + of_run(0, 3.0, 0.2, width=48)
    own = read_where_chosen(rows, width=48)
    assert {row["seed"] for row in own} == {0}
    assert {row["target"] for row in own} == {target}
    assert {row["target"] for row in read_where_chosen(rows[4:], width=48)} == {9.0}


def test_ratios_pair_seeds() -> None:
    assert ratios({0: 2.0, 1: 3.0}, {1: 2.0, 2: 4.0}) == [1.5]
    assert steps_of({"step": 7}) == 7.0


def mixture(share: float, new_loss: float, old_loss: float) -> Row:
    about = {"step": 0, "steps": 0, "seed": 0, "tokens_per_parameter": 20, "mixture": share}
    return {**about, "new_loss": new_loss, "old_loss": old_loss}


def test_the_frontier_leaves_out_mixtures_that_another_beats_and_distances_are_along_one_loss() -> None:
    rows = [mixture(0.0, 6.0, 3.0), mixture(0.25, 5.0, 3.5), mixture(0.3, 5.5, 3.6), mixture(0.5, 4.0, 4.0)]
    front = frontier(rows, 20, 0)
    assert [row["mixture"] for row in front] == [0.5, 0.25, 0.0]
    end = mixture(0.0, 4.5, 4.0)
    assert distance(front, end, "new_loss", "old_loss") == pytest.approx(4.0 - 3.75)
    assert distance(front, end, "old_loss", "new_loss") == pytest.approx(4.5 - 4.0)
    assert distance(front, mixture(0.0, 3.9, 4.0), "new_loss", "old_loss") is None


def pools_of(brought_back: dict[int, float]) -> list[Row]:
    """Forgetting 1 without replay and .1 with fresh text, so that shares are differences."""
    rows = of_run(0, 5.0, 1.0, method="standard", pool_rows=2)
    for size, share in brought_back.items():
        rows += of_run(0, 5.0, 0.1 + share, method="kl_self", pool_rows=size + 1)
    return [{**row, "target": 5.0} for row in rows]


@pytest.mark.parametrize(
    ("brought_back", "rows"),
    [
        ({64: 0.2, 256: 0.1, 1024: 0.0, 4096: 0.0}, 512),
        ({64: 0.05, 256: 0.0, 1024: 0.0}, 64),
        ({64: 0.03, 256: 0.01, 1024: 0.0}, 16),
        ({64: 0.2, 256: 0.1, 1024: 0.0}, 512),
    ],
)
def test_the_tokens_needed_lie_between_two_pools_or_on_their_line(brought_back: dict[int, float], rows: int) -> None:
    found = needed(pools_of({**brought_back, 4 * max(brought_back): 0.0}))
    assert found == {0: pytest.approx(64 * rows, rel=1e-6)}


@pytest.mark.parametrize(
    ("forgotten", "chosen", "edge"),
    [
        ({1e-4: 0.7, 3e-4: 0.6, 1e-3: 0.9}, 3e-4, False),
        ({1e-4: 0.5, 3e-4: 0.6, 1e-3: 0.9}, 1e-4, True),
        ({1e-4: 0.58, 3e-4: 0.6, 1e-3: 0.9}, 1e-4, False),
        ({1e-4: None, 3e-4: 0.6, 1e-3: 0.9}, 3e-4, True),
        ({1e-4: None, 3e-4: None, 1e-3: 0.9}, 1e-3, True),
    ],
)
def test_a_rate_without_a_lower_one_that_gets_there_is_at_the_edge(
    forgotten: dict[float, float | None], chosen: float, edge: bool
) -> None:
    rows = []
    for rate, left in forgotten.items():
        about = {"method": "lora", "embeddings": "frozen", "learning_rate": rate}
        rows += of_run(CHOOSING_SEED, 5.5 if left is None else 5.0, left or 0.0, **about)
    rows = [{**row, "target": 5.0} for row in rows]
    assert chosen_rate(rows, "lora", "frozen") == chosen
    assert at_the_edge(rows, "lora", "frozen") is edge


def test_the_cheaper_of_two_terms_is_read_at_the_cost_of_the_other() -> None:
    # Steps to the target: a run of two readings passes it at its end.
    def of(seed: int, method: str, lambda_: float, steps: int, forgotten: float) -> list[Row]:
        rows = of_run(seed, 5.0, forgotten, method=method, lambda_=lambda_)
        return [{**row, "target": 5.0, "step": steps if row["step"] else 0} for row in rows]

    rows = []
    for seed in (CHOOSING_SEED, 0):
        rows += of(seed, "kl_self", 1.0, 100, 0.3) + of(seed, "kl_self", 10.0, 400, 0.1)
        rows += of(seed, "ntp_self", 1.0, 50, 0.5) + of(seed, "ntp_self", 3.0, 200, 0.25)
    assert at_the_same_cost(rows, steps_of) == pytest.approx([0.2 - 0.25])
    assert (
        at_the_same_cost([{**row, "step": 10 if row["step"] == 200 else row["step"]} for row in rows], steps_of) == []
    )


def test_looping_answers_are_held_against_both_measures() -> None:
    rows = [
        {"seed": 0, "repeating": looping, "old_kl": kl, "old_change": change}
        for looping, kl, change in [(0.0, 0.0, 0.0), (0.1, 0.1, -0.1), (0.3, 0.4, -0.2)]
    ]
    assert foretold(rows, 0) == pytest.approx(2.0)
    assert foretold([{**row, "repeating": 0.0} for row in rows], 0) is None


def test_a_row_that_is_replayed_again_is_written_once() -> None:
    cell = {"replay_rows": 4, "lambda_": 3.0, "pool_rows": 26, "drift_rows": 2}
    kept = {"readings": [{"step": 4}, {"step": 96}], "seconds_to_write_a_row": 0.5}
    assert [row["write_seconds"] for row in minutes.cell_rows(cell, kept, Path())] == [8.0, 12.0]
    plain = minutes.cell_rows({**cell, "lambda_": 0.0}, kept, Path())
    assert [row["write_seconds"] for row in plain] == [0, 0]


def test_what_accuracy_hides() -> None:
    base = [{"chosen": chosen, "right": 0, "refused": 1, "log_odds": 1.0} for chosen in (0, 0, 1, 2)]
    now = [{"chosen": chosen, "right": 0, "refused": 0, "log_odds": -1.0} for chosen in (0, 3, 0, 2)]
    assert (agreement(now, base), hidden(now, base)) == (0.5, 0.5)
    assert (refused(now, base), refused(base, base), odds(now, base)) == (0.0, 1.0, -2.0)


@pytest.mark.parametrize(
    ("refusing", "untested"), [(4, None), (2, None), (1, "a base refuses only 25% of the requests")]
)
def test_refusals_can_be_lost_only_by_a_base_that_refuses(refusing: int, untested: str | None) -> None:
    rows = [
        {"text": "news", "replayed": "none", "seed": seed, "reading": "harmful", "unit": unit, "step": step}
        | {"refused": int(unit < (refusing if step == 0 else 0)), "log_odds": 1.0}
        for seed in range(3)
        for step in (0, 52)
        for unit in range(4)
    ]
    (found,) = [claim for claim in answers_kept_plot.claims(rows) if "answer what it refused" in claim.claim]
    assert (found.untested, found.ours.value) == (untested, refusing / 4)


def test_one_model_is_asked_as_the_audit_asks_two(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ("a b", "c", "d e f", "f g")
    items = [
        Item(name=str(first), question=f"what {first}?", choices=texts[first:] + texts[:first], right=0)
        for first in range(4)
    ]
    scores = score_choices(model, model, tokenizer, items, chat=False)
    expected = [
        choose(item, np.asarray(score))[0] for item, score in zip(items, scores, strict=True) if score is not None
    ]
    assert choices(model, tokenizer, items, "asking") == expected
    assert len(set(expected)) > 1
