"""TRL's private names, in one place: a test fails when one of them moves."""

from __future__ import annotations

from typing import Any

from trl.models.utils import _ForwardRedirection

__all__ = ["_ForwardRedirection", "total_train_tokens"]


def total_train_tokens(trainer: Any) -> int:
    """Tokens that a TRL trainer has counted since it was built; 0 for trainers that do not count."""
    return int(getattr(trainer, "_total_train_tokens", 0))
