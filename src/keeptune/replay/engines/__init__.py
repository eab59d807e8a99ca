"""Engines write rows of token ids from a base model's distribution. `sample_pool` takes one by name or as an object.

An engine of your own needs the members of `Engine`. To make it known by name, add its class to `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.engines.vllm import VLLM
from keeptune.replay.openings import OpeningIds


class Engine(Protocol):
    """Writes rows of text from the base's own distribution: ancestral sampling, no top-k, no top-p, no stop token."""

    name: str
    """Recorded in the pool's settings."""
    rows: int
    """Rows to sample in one call, which become one shard of the pool."""
    temperature: float
    """Divides the logits; 1 is the base's own distribution. Recorded in the pool's settings."""

    def sample(self, rows: int, length: int, opening: OpeningIds, seed: int) -> Tensor:
        """Token ids, int64 [rows, opening + length]: the opening of each row, then `length` sampled tokens.

        `opening` holds the ids that all rows start with, or one list of ids for each row, all of one length. The same
        `seed` gives the same rows.
        """


@runtime_checkable
class EngineMaker(Protocol):
    """Makes an engine for a base, once it is known how many rows are sampled together."""

    name: str

    def __call__(
        self, model: nn.Module, *, dtype: torch.dtype, rows: int, temperature: float, on_token: Callable[[int], None]
    ) -> Engine:
        """The engine; `on_token` may be called with a number of sampled tokens, for progress."""

    def rows_that_fit(self, model: nn.Module, length: int, dtype: torch.dtype) -> int:
        """Rows of `length` tokens that the engine can sample together in the free memory."""


ENGINES: dict[str, EngineMaker] = {"torch": TorchEngine, "vllm": VLLM()}


def engine_named(name: str) -> EngineMaker:
    """The registered engine of that name. Raises `ConfigError` if no engine has it."""
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}", f"choose one of {', '.join(ENGINES)}")
    return ENGINES[name]
