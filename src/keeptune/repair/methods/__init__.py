"""Ways to make a model between base and tuned one: a small file each, behind one seam.

A method says what a tensor becomes at a strength. 0 is the base; 1 is the tuned model, or another end where the method
changes that too; what lies between is its own. To add one, write a module with a class that has the members of
`Method`, and add it to `METHODS`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from keeptune.repair.methods.groups import Groups
from keeptune.repair.methods.interpolate import Interpolate
from keeptune.repair.methods.sparsify import Dare, Trim
from keeptune.repair.methods.svd import Svd


class Method(Protocol):
    """How a candidate's weights are made."""

    name: str
    title: str
    """A few words, for tables."""
    ends_at_tuned: bool
    """Whether strength 1 is the tuned model."""
    linear: bool
    """Whether each tensor lies on the line between its two ends, so that factors of an adapter can be scaled by it."""

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """A tensor of the candidate at a strength of 0 … 1. At 0 it is the base's."""


# In the order in which they are tried: the cheapest first. `tune` is no function of the weights: see `repair.tuning`.
METHODS: dict[str, type[Method] | None] = {
    "interpolate": Interpolate,
    "groups": Groups,
    "trim": Trim,
    "dare": Dare,
    "svd": Svd,
    "tune": None,
}
