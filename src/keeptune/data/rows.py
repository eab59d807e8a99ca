"""The accepted layouts of a row: columns, their check, and their tokens. For one more add an entry to `LAYOUTS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from keeptune.data import layouts, tokens
from keeptune.data.chat import Chats
from keeptune.data.layouts import Columns
from keeptune.data.tokens import IGNORED_LABEL, TokenRow
from keeptune.errors import SourceError
from keeptune.log import logger

__all__ = ["IGNORED_LABEL", "LAYOUTS", "MAX_LENGTH", "ROW_LENGTH", "SEED", "Columns", "Layout", "Tokenize"]

ROW_LENGTH = 128
"""Default tokens of a replay row."""
MAX_LENGTH = 256
"""Default tokens of a row of task text, and of a window of measured text."""
SEED = 42
"""Default seed of everything random but an audit's own text, which no training pool may share."""

Tokenize = Callable[[Columns, PreTrainedTokenizerBase, int, int | None], Iterator[TokenRow]]
"""(document, tokenizer, maximal length, id that starts a document or None) → token rows."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout of rows."""

    columns: tuple[str, ...]  # that a row of this layout has
    check: Callable[[Columns, str], Columns]
    """(row, its place for errors) → the columns of this layout or of one that is tokenized, or a `SourceError`."""
    tokenize: Tokenize | None = None
    """None: `check` turns the row into another layout, or `start` makes it."""
    start: Callable[[PreTrainedTokenizerBase], Tokenize] | None = None
    """Makes `tokenize` for one data set. Raises `ConfigError` if the tokenizer does not suit the layout."""


def layout_of(columns: Iterable[str]) -> Layout | None:
    """The first layout in `LAYOUTS` whose columns are all there."""
    present = set(columns)
    return next((layout for layout in LAYOUTS.values() if present.issuperset(layout.columns)), None)


def accepted_columns() -> str:
    """The columns of all layouts, for error messages."""
    return "accepted columns: " + ", or ".join(" and ".join(layout.columns) for layout in LAYOUTS.values())


def checked(row: Any, place: str) -> Columns:
    """The row in a layout that is tokenized. Raises `SourceError` if it fits no layout, or cannot be honoured."""
    if not isinstance(row, dict):
        raise SourceError(f"{place} is not an object of columns", accepted_columns())
    layout = layout_of(row)
    layouts.refuse_unhonoured(row, place, layout.columns if layout else ())
    if layout is None:
        raise SourceError(f"{place} has the columns {', '.join(sorted(row)) or 'none'}", accepted_columns())
    return layout.check(row, place)


class Unread:
    """Counts what rows hold and no layout reads, to say it once."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._rows: Counter[str] = Counter()
        self._nulls = 0

    def add(self, row: Columns) -> None:
        """Count a row's columns, and whether it holds a null that is read as an absent key."""
        layout = layout_of(row)
        if layout is not None:
            self._rows.update(layouts.unread_columns(row, layout.columns))
            self._nulls += layouts.has_absent_nulls(row, layout.columns)

    def report(self, source: str) -> None:
        """Say what was not read, and in how many rows."""
        if self._nulls:
            logger.info(
                f"{source}: a null in the arguments or schema of a tool counts as an absent key ({self._nulls} rows); "
                "written as JSON text it is kept"
            )
        if self._rows:
            columns = ", ".join(f"{column} ({count} rows)" for column, count in sorted(self._rows.items()))
            logger.info(f"{source}: columns that are not read: {columns}")


# If a row has the columns of several layouts, the first one is used.
LAYOUTS = {
    "messages": Layout(columns=("messages",), check=layouts.messages(), start=Chats),
    "completion": Layout(columns=("prompt", "completion"), check=layouts.completion, tokenize=tokens.completion),
    "text": Layout(
        columns=("text",),
        check=layouts.strings("text"),
        tokenize=lambda document, *given: tokens.windows(str(document["text"]), *given),
    ),
    "conversations": Layout(columns=("conversations",), check=layouts.messages("conversations")),
    "conversation": Layout(columns=("conversation",), check=layouts.messages("conversation")),
    **{
        f"{asked} and {answered}": Layout(columns=(asked, answered), check=layouts.question(asked, answered))
        for asked, answered in (
            ("instruction", "output"),
            ("instruction", "response"),
            ("question", "answer"),
            ("query", "response"),
            ("prompt", "response"),
        )
    },
}
