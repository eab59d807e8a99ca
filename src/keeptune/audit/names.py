"""What to call models in tables and charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def short_names(sources: Sequence[str]) -> list[str]:
    """Each source by the fewest last parts of its path that no other source ends in.

    `["runs/a/model", "runs/b/model"]` → `["a/model", "b/model"]`; sources that are equal stay equal, in full.
    """
    parts = [PurePath(source).parts or (source,) for source in sources]
    names = []
    for own, source in zip(parts, sources, strict=True):
        tails = ["/".join(own[-count:]) for count in range(1, len(own) + 1)]
        unique = (tail for count, tail in enumerate(tails, start=1) if _seen(parts, count)[own[-count:]] == 1)
        names.append(next(unique, source))
    return names


def _seen(parts: Sequence[tuple[str, ...]], count: int) -> Counter[tuple[str, ...]]:
    return Counter(own[-count:] for own in parts)
