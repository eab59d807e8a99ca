"""Errors travel from one process to another as they are."""

from __future__ import annotations

import pickle

import pytest

from keeptune import errors
from keeptune.errors import KeeptuneError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KeeptuneError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_arrives_with_its_fix(kind: type[KeeptuneError]) -> None:
    arrived = pickle.loads(pickle.dumps(kind("it broke", "mend it")))  # noqa: S301 — our own bytes
    assert type(arrived) is kind and (arrived.what, arrived.fix, str(arrived)) == ("it broke", "mend it", "it broke")
    assert arrived.__notes__ == ["What to do: mend it"]
    assert kind.__name__ in (errors.__doc__ or "")
