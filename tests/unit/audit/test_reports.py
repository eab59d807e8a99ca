"""Short names: as short as they can be, and never two alike for two sources."""

from __future__ import annotations

import pytest

from keeptune.audit.reports import short_names


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
