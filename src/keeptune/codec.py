"""Typed values as JSON and back: frozen dataclasses go into files, and only what fits them comes out."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from typing_extensions import TypeAliasType

if TYPE_CHECKING:
    from pydantic import JsonValue, TypeAdapter
else:  # pydantic is slow to load, and `import keeptune` needs none of it
    JsonValue = TypeAliasType("JsonValue", "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None")

Kind = TypeVar("Kind")

__all__ = ["JsonValue", "from_json", "schema_of", "to_json"]


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - see above

    return TypeAdapter(cast(Any, kind))


def to_json(value: object, kind: Any = None) -> JsonValue:
    """A value as JSON has it; `kind` is its type where that is not its class, such as `list[Passage]`."""
    return cast(JsonValue, _adapter(cast(Hashable, kind or type(value))).dump_python(value, mode="json", by_alias=True))


def from_json(kind: type[Kind], content: JsonValue | bytes) -> Kind:
    """The value of this type that JSON holds, as a value or as the bytes of a file.

    Raises:
        ValueError: it is no JSON, or does not fit the type; says where.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - see above

    text = content if isinstance(content, bytes) else json.dumps(content, allow_nan=False).encode()
    try:
        json.loads(text, parse_constant=_refuse)
        return cast(Kind, _adapter(cast(Hashable, kind)).validate_json(text, strict=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{place}: {first['msg']}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def schema_of(kind: type) -> dict[str, JsonValue]:
    """The JSON schema of a type."""
    return _adapter(kind).json_schema()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
