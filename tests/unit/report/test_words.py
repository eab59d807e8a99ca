"""Words: lists, counts, characters that turn text around, and short names that are never alike for two sources."""

from __future__ import annotations

import pytest

from keeptune.report.words import counted, listed, named, repair_command, short_names, visible


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["runs/a/model", "runs/b/model"], ["a/model", "b/model"]),
        (["/tmp/one", "two.gguf"], ["one", "two.gguf"]),
        (["org/name"], ["name"]),
        (["model", "runs/model"], ["model", "runs/model"]),
        (["x/a/m", "y/a/m", "y/b/m"], ["x/a/m", "y/a/m", "b/m"]),
        (["same/model", "same/model"], ["same/model", "same/model"]),
        (["a/model/", "b/model"], ["a/model", "b/model"]),
        ([""], [""]),
    ],
)
def test_the_fewest_parts_that_no_other_ends_in(sources: list[str], expected: list[str]) -> None:
    assert short_names(sources) == expected


def test_lists_and_counts() -> None:
    assert [listed(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert named(list("abcd")) == "a, b, c and 1 more"
    assert [counted(n, "text") for n in (1, 2, 16_321)] == ["1 text", "2 texts", "16,321 texts"]
    assert visible("a\u202eb") == "a⟨U+202E⟩b"


@pytest.mark.parametrize(("kl", "budget"), [(0.113, "0.03"), (2.4, "0.6"), (0.0004, "0.0001")])
def test_a_repair_gives_back_three_quarters(kl: float, budget: str) -> None:
    assert repair_command("a b", "c", kl) == f"keeptune repair 'a b' c --budget {budget}"
