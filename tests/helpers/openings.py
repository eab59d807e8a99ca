"""Pools whose rows open with several tokens, and not all with as many."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from keeptune.replay import begin, generate
from keeptune.replay.openings import Openings, find_openings
from keeptune.replay.pool import ReplayPool
from tests.helpers.models import make_model, make_tokenizer

RAGGED = [[0], [9, 8, 0], [5, 0], [7, 6, 5, 4, 3, 0]]


def ragged_pool(folder: Path, *, length: int = 12, rows: int = 10, **settings: Any) -> ReplayPool:
    """Rows that open with each of `RAGGED` in turn."""
    found = find_openings(make_model(), make_tokenizer(), length=length, seed=0)
    several = Openings(settings={**found.settings, "openings": RAGGED}, description="several lengths")
    how: dict[str, Any] = {"tokens": rows * length, "length": length, "dtype": torch.float32, **settings}
    with patch.object(begin, "find_openings", lambda *given, **asked: several):
        return generate.sample_pool(make_model(), make_tokenizer(), folder, **how)
