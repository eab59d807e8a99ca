"""KeepConfig as a host's configuration file says it, and a host's own trainer with keeping added."""

from __future__ import annotations

import dataclasses
import inspect
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from keeptune.errors import KeeptuneError
from keeptune.train.config import KeepConfig
from keeptune.train.mixin import KeepMixin

_SIMPLE = (str, int, float, bool, type(None))


class _Settings(BaseModel):
    """Fields of `KeepConfig`; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _check(self) -> _Settings:
        try:
            self.keep_config()
        except KeeptuneError as error:
            raise ValueError(f"{error.what}; {error.fix}") from error
        return self

    def keep_config(self) -> KeepConfig:
        """The same as a `KeepConfig`."""
        return KeepConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(KeepConfig)})


def _as_written(kind: Any) -> Any:
    """The part of a field's type that a configuration file can say: no objects such as a pool or a teacher."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return Union[tuple(part for part in get_args(kind) if part in _SIMPLE)]  # noqa: UP007


def _field(field: dataclasses.Field[Any]) -> Any:
    # A name that ends in an underscore only because Python reserves the word is written without it.
    return Field(default=field.default, alias=field.name.rstrip("_"))


_TYPES = get_type_hints(KeepConfig)
_FIELDS: dict[str, Any] = {
    field.name: (_as_written(_TYPES[field.name]), _field(field)) for field in dataclasses.fields(KeepConfig)
}
KeepSettings = create_model("KeepSettings", __base__=_Settings, **_FIELDS)
"""A pydantic model with the fields of `KeepConfig`, of which `lambda_` may be written `lambda`."""


def keeping(parent: type[Any], keep: KeepConfig) -> type[Any]:
    """The host's trainer class with `KeepMixin` before it and its settings bound: the host gives none."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        super(trainer, self).__init__(*args, keep=keep, **kwargs)

    # Hosts read the signature to find out which arguments a trainer takes.
    members = {"__init__": __init__, "__signature__": inspect.signature(parent), "__module__": parent.__module__}
    trainer: type[Any] = type(f"Keep{parent.__name__}", (KeepMixin, parent), members)
    return trainer
