"""Families of models: a part of the catalog that changes from day to day, and the committed table of all of it.

`make families` walks the whole catalog.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.catalog import FAMILIES
from tests.families.harness import STAGES, walk
from tests.families.run import PAGE, TABLE, page

A_DAY = 2


def of_today() -> list[str]:
    """So many families a day, so that all have their turn."""
    names, day = list(FAMILIES), datetime.now(UTC).toordinal()
    return [names[(day * A_DAY + place) % len(names)] for place in range(A_DAY)]


@pytest.fixture
def _quickly() -> Iterator[None]:
    """Tiny models are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def committed() -> list[dict[str, Any]]:
    walks: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))["families"]
    return walks


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize("name", of_today())
def test_a_family_is_what_the_table_says(name: str, tmp_path: Path) -> None:
    expected = next(row for row in committed() if row["name"] == name)
    result = walk(FAMILIES[name], tmp_path)
    assert (result.verdict, result.stages) == (expected["verdict"], expected["stages"]), result.reason


def test_the_table_holds_the_whole_catalog_and_no_failure() -> None:
    walks = committed()
    assert [row["name"] for row in walks] == list(FAMILIES)
    assert {row["group"] for row in walks} == {family.group for family in FAMILIES.values()}
    assert all(row["group"] == FAMILIES[row["name"]].group for row in walks)
    counts = Counter(row["verdict"] for row in walks)
    assert not counts["failed"]
    assert counts["exact"] >= 75
    assert all(set(row["stages"]) == set(STAGES) for row in walks)
    assert PAGE.read_text(encoding="utf-8") == page(walks)


def test_what_is_refused_is_refused_for_one_of_five_reasons() -> None:
    for row in committed():
        if row["verdict"] != "refused":
            continue
        reason, group = row["reason"], row["group"]
        assert (
            (group == "encoder-decoder" and "is an encoder-decoder" in reason)
            or (group == "not causal" and "change with the tokens after it" in reason)
            or "cannot be sampled: token by token" in reason
            or "cannot answer prompts as it predicts" in reason
            or "PEFT does not read" in reason
            or (row["trl"] and "TRL's own loss fails" in reason and row["trl"].partition(":")[0] in reason)
        ), row
