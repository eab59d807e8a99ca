"""TRL's private names, in one place: a test fails when one of them moves."""

from __future__ import annotations

from typing import Any

import trl
from trl.models.utils import _ForwardRedirection

from keeptune.errors import ConfigError

__all__ = ["_ForwardRedirection", "require_current_parents", "total_train_tokens", "trl_parents"]


def total_train_tokens(trainer: Any) -> int:
    """Tokens that a TRL trainer has counted since it was built; 0 for trainers that do not count."""
    return int(getattr(trainer, "_total_train_tokens", 0))


def trl_parents(trainer: type[Any]) -> dict[str, type[Any]]:
    """The classes above a trainer that TRL exports now, by name."""
    named = {parent.__name__: parent for parent in trainer.__mro__ if parent.__module__.startswith("trl.")}
    return {name: parent for name, parent in named.items() if getattr(trl, name, None) is parent}


def require_current_parents(trainer: type[Any], parents: dict[str, type[Any]]) -> None:
    """Refuse a trainer whose parents TRL exported when it was defined, and no longer does, as Unsloth replaces them.

    Raises:
        ConfigError: such a trainer; it would train without what the replacement adds.
    """
    for name in parents:
        if not issubclass(trainer, getattr(trl, name)):
            raise ConfigError(
                f"trl.{name} was replaced, as importing unsloth does, after {trainer.__name__} was defined, so this "
                "trainer lacks what the replacement adds",
                "import unsloth first, before anything of keeptune or trl",
            )
