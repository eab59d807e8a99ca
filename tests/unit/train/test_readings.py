"""runs.jsonl: whole lines, a line cut by a kill forgiven, rewound on resume, and only what is a reading is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import SourceError
from keeptune.train.readings import Reading, append_row, measured_loss, read_rows, rewind

WHERE = {"L_ft_on": "held-out", "L_f_on": "self", "base": "a1", "machine": "x86_64", "device": "cpu", "objective": "kl"}
LOSSES = {"L_ft": 2.5, "L_f": 1.0, "L_f_base": 0.9, "lambda": 1.0, "learning_rate": 1e-4}
COUNTS = {"P": 10, "replay_tokens": 64, "task_tokens": 9, "seconds": 1.5, "tokens_per_second": None, "seed": 42}


def reading(step: Any, KL: float = 0.1, **more: Any) -> Reading:
    row: Any = {"step": step, "N": step, **WHERE, **LOSSES, **COUNTS, "KL": KL, "versions": {"torch": "2.9"}, **more}
    return row


def test_rows_come_back_and_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert read_rows(path) == []
    rows = [reading(0), reading(5, forecast={"share": 0.5, "kl": "early", "l_ft": "early", "l_f_rise": "early"})]
    for row in (*rows, reading(10), reading(10, model_step=5)):
        append_row(path, row)
    with path.open("a") as file:
        file.write('{"step": 15, "KL"')
    assert read_rows(path) == [*rows, reading(10), reading(10, model_step=5)]
    rewind(path, 10)
    assert read_rows(path) == [*rows, reading(10)]
    rewind(path, 5)
    append_row(path, reading(10, 0.2))
    assert [(row["step"], row["KL"]) for row in read_rows(path)] == [(0, 0.1), (5, 0.1), (10, 0.2)]


def test_a_rewind_keeps_the_bytes_of_the_rows_before_and_what_another_version_wrote_beside(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    first = json.dumps({**reading(0), "of_a_later_version": [1]}) + "\n"
    path.write_text(first + json.dumps(reading(5)) + "\n")
    assert json.dumps(read_rows(path)[0]) + "\n" == first, "keys in their order"
    rewind(path, 0)
    assert path.read_text() == first


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"step": 0}\nnonsense\n{"step": 1}\n')
    with pytest.raises(SourceError, match="line 2"):
        read_rows(path)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in reading(1).items() if key != name})


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("[1]", "the whole"),
        ("7", "the whole"),
        ("null", "the whole"),
        ('"step"', "the whole"),
        *((without(name), name) for name in reading(1)),
        (json.dumps(reading(step="1")), "step"),
        (json.dumps(reading(step=1.5)), "step"),
        (json.dumps(reading(1, KL="much")), "KL"),
        (json.dumps(reading(1, KL=None)), "KL"),
        (json.dumps(reading(1, versions=["torch"])), "versions"),
        (json.dumps(reading(1, forecast={"share": 0.5})), "forecast"),
        (
            json.dumps(reading(1, forecast={"share": 0.5, "kl": {"low": 1}, "l_ft": "", "l_f_rise": ""})),
            "forecast.kl",
        ),
        (json.dumps(reading(1)).replace("0.1,", "NaN,"), "JSON"),
    ],
)
def test_a_line_that_is_no_reading_is_told_with_its_field(tmp_path: Path, line: str, field: str) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(f"{json.dumps(reading(0))}\n{line}\n")
    for read in (read_rows, lambda path: rewind(path, 5)):
        with pytest.raises(SourceError, match=rf"runs\.jsonl is damaged: line 2 is not a reading \(.*{field}"):
            read(path)


def test_a_loss_that_was_not_measured_is_no_number() -> None:
    assert measured_loss(reading(3)) == 2.5
    with pytest.raises(SourceError, match="step 3 has no L_ft"):
        measured_loss(reading(3, L_ft=None))
