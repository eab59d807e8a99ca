"""The table of capacity probes is that of the committed rows, and says what its page says."""

from __future__ import annotations

import pytest

from capacity_probe import probe
from common.grid import LAB
from common.results import read_csv


def test_the_table_is_that_of_the_committed_rows() -> None:
    table = probe.rows()
    assert probe.as_markdown(table) in (LAB / "capacity_probe" / "README.md").read_text(encoding="utf-8")
    kept = read_csv(LAB / "capacity_probe" / "table.csv")
    assert [[row["truth"], row["by_kl"], row["by_old_text"]] for row in kept] == [
        [str(row["truth"]), str(row["by_kl"]), str(row["by_old_text"])] for row in table
    ]
    known = [row for row in table if row["truth"] is not probe.Truth.BORDERLINE]
    assert (len(known), sum(not row["by_kl_right"] for row in known)) == (16, 8)
    assert all(row["by_old_text_right"] for row in known)
    said = [row["by_old_text"] for row in known]
    assert {verdict: said.count(verdict) for verdict in probe.Verdict} == {"spare": 9, "saturated": 6, "undecided": 1}


@pytest.mark.parametrize(
    ("share", "price", "expected"),
    [
        (0.7, 0.01, "spare"),
        (0.7, -0.1, "spare"),
        (0.7, 0.03, "saturated"),
        (0.7, 0.021, "undecided"),
        (0.4, 0.01, "undecided"),
    ],
)
def test_the_rule_by_old_text(share: float, price: float, expected: str) -> None:
    assert probe.rule(share, price) == expected
    right = {truth: probe.Verdict(expected).is_right(truth) for truth in probe.Truth}
    assert right[probe.Truth.BORDERLINE] is None
    assert right[probe.Truth.ROOM] == (expected != "saturated")
    assert right[probe.Truth.NONE] == (expected != "spare")


@pytest.mark.parametrize(
    ("share", "price", "half", "expected"),
    [
        (0.95, 0.01, 0.01, "spare"),
        (0.7, 0.01, 0.01, "undecided"),
        (0.95, 0.05, 0.05, "saturated"),
        (0.95, 0.05, 0.075, "undecided"),
    ],
)
def test_the_former_rule(share: float, price: float, half: float, expected: str) -> None:
    assert probe.former_rule(share, price, half, 2.0) == expected
