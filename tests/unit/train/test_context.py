"""An optimizer step's window, and what a value that is not finite does to a run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keeptune.errors import Diverged
from keeptune.train.context import KeepContext, Window


def test_a_window_counts_its_micro_batches_and_adds_their_terms() -> None:
    window = Window(step=4, micros=3, tokens=96, lambda_=2.0)
    assert (window.micro, window.mean_replay()) == (0, 0)
    window.replay += [torch.tensor(0.25), torch.tensor(0.5)]
    assert window.micro == 2
    assert window.mean_replay() == 0.75
    assert window.mean_replay(share=2) == 0.375


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_only_a_run_that_requires_it(value: float) -> None:
    facts: Any = SimpleNamespace(require_finite=True)
    assert KeepContext.check_finite(facts, "the loss", 1.0, step=3)
    with pytest.raises(Diverged, match=r"the loss became .* at step 3"):
        KeepContext.check_finite(facts, "the loss", value, step=3)
    facts.require_finite = False
    assert not KeepContext.check_finite(facts, "the loss", value, step=3)
