"""runs.jsonl: whole lines, a line cut by a kill forgiven, rewound on resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.errors import SourceError
from keeptune.train.readings import append_row, read_rows, rewind


def test_rows_come_back_and_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert read_rows(path) == []
    for step in (0, 5, 10):
        append_row(path, {"step": step, "KL": 0.1})
    with path.open("a") as file:
        file.write('{"step": 15, "KL"')
    assert [row["step"] for row in read_rows(path)] == [0, 5, 10]
    rewind(path, 5)
    append_row(path, {"step": 10, "KL": 0.2})
    assert [(row["step"], row["KL"]) for row in read_rows(path)] == [(0, 0.1), (5, 0.1), (10, 0.2)]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"step": 0}\nnonsense\n{"step": 1}\n')
    with pytest.raises(SourceError, match="line 2"):
        read_rows(path)


@pytest.mark.parametrize("line", ["[1]", "7", '{"KL": 0.1}'])
def test_a_line_that_is_no_reading_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(SourceError, match="line 2 is not a reading"):
        rewind(path, 5)
