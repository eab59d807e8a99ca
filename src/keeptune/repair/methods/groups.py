"""A coefficient for each group of modules: what was learned cheaply is kept, what forgets much is taken back.

Near its ends the loss is a quadratic form. With a_g, the KL to the base of the base with group g tuned, and b_g, the KL
to the tuned model of that model with group g put back, and without the terms between groups,

    minimise Σ b_g (1 − c_g)²   subject to   Σ a_g c_g² ≤ budget   gives   c_g = s·b_g / (s·b_g + (1 − s)·a_g)

where s in 0 … 1 stands for the multiplier. Both are normalized to a sum of 1. Two readings a group are all that is
needed, and the candidates themselves are read like any other's: the approximation costs optimality, never a bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_BLOCK = re.compile(r"(?:^|\.)(\d+)\.(.+)$")
_ATTENTION = re.compile(r"attn|attention|(?<![a-z])[qkvo]_proj|query_key_value|mixer|ssm|rotary", re.IGNORECASE)
_THIRDS = ("early", "middle", "late")
OUTSIDE = "outside"


def group_of(name: str, blocks: int) -> str:
    """`early attention` … `late mlp` by the third of the depth; `outside` for embeddings, head and final norm."""
    found = _BLOCK.search(name)
    if found is None:
        return OUTSIDE
    third = _THIRDS[min(3 * int(found[1]) // max(blocks, 1), 2)]
    return f"{third} {'attention' if _ATTENTION.search(found[2]) else 'mlp'}"


def blocks_of(names: Iterable[str]) -> int:
    """How many blocks a model has, by its tensors' names."""
    return 1 + max((int(found[1]) for name in names if (found := _BLOCK.search(name))), default=0)


@dataclass
class Groups:
    """Coefficients by group, from the readings of `measure`."""

    name, title, ends_at_tuned, linear = "groups", "a coefficient for each group of modules", True, True
    groups: Mapping[str, str] = field(default_factory=dict)
    """Group by tensor."""
    forgets: Mapping[str, float] = field(default_factory=dict)
    """a_g, normalized."""
    learns: Mapping[str, float] = field(default_factory=dict)
    """b_g, normalized."""

    @classmethod
    def measure(
        cls, names: Iterable[str], blocks: int, kl: Callable[[Callable[[str], bool]], tuple[float, float]]
    ) -> Groups:
        """Read both KLs of each group.

        Args:
            names: the tensors that differ.
            kl: from which tensors are the tuned model's, the others being the base's, to KL(base‖it) on the base's text
                and KL(tuned‖it) on the tuned model's, nats per token.
        """
        groups = {name: group_of(name, blocks) for name in names}
        forgets, learns = {}, {}
        for group in sorted(set(groups.values())):
            forgets[group] = kl(lambda name, group=group: groups[name] == group)[0]  # type: ignore[misc]
            learns[group] = kl(lambda name, group=group: groups[name] != group)[1]  # type: ignore[misc]
        return cls(groups=groups, forgets=_normalized(forgets), learns=_normalized(learns))

    def coefficient(self, group: str, strength: float) -> float:
        """c_g."""
        kept, taken = strength * self.learns[group], (1 - strength) * self.forgets[group]
        return kept / (kept + taken) if kept + taken else strength

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """The point on the tensor's own line."""
        return torch.lerp(base, tuned, self.coefficient(self.groups[name], strength))


def _normalized(values: Mapping[str, float]) -> dict[str, float]:
    """Shares of the sum; rounding may have made one negative."""
    above = {name: max(value, 0.0) for name, value in values.items()}
    total = sum(above.values()) or 1.0
    return {name: value / total for name, value in above.items()}
