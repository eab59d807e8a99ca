"""Finished steps of some work that are kept as JSON and come back as their type (`keeptune.codec`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import JsonValue

from keeptune.codec import from_json, schema_of, to_json
from keeptune.workspace import Steps

Kind = TypeVar("Kind")

__all__ = ["JsonValue", "from_json", "once", "schema_of", "to_json"]


def once(steps: Steps, name: str, kind: type[Kind], compute: Callable[[], Kind]) -> Kind:
    """A finished step of some work, kept as JSON (`Steps.once`) and read back as its type.

    What an earlier version kept under the same inputs in another form is computed again.
    """

    def kept() -> JsonValue:
        return steps.once(name, lambda: to_json(compute(), kind))

    content = kept()
    try:
        return from_json(kind, content)
    except ValueError:
        steps.file(name).unlink()
    return from_json(kind, kept())
