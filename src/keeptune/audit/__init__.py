"""Measure what a tuned model forgot. The package itself can be called: `keeptune.audit(base, tuned, texts=...)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    # `keeptune.audit` is a package, and importing any module of it sets that name; so the call must be the package's.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from keeptune.audit.api import audit  # noqa: PLC0415 - keeps `import keeptune.audit` light

        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
