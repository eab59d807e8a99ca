"""Reports read back from disk: whole, of the right kind and of one base, or refused; and the names in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from keeptune.audit.gate import floor_of
from keeptune.audit.run import REPORT
from keeptune.audit.verdict import FLOOR_MEASURES
from keeptune.errors import SourceError, SourceNotFound

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_AGAIN = "make it anew: keeptune audit BASE TUNED"
KIND = "audit"
OF_BASE = ("entropy", "l_f_base", "ce_base")
"""Measures of a text that the tuned model has no part in."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report and where it came from."""

    path: str
    name: str | None
    """What the user calls it."""
    content: dict[str, Any]

    def refused(self, why: str, fix: str) -> SourceError:
        """The error that says what is wrong with this report."""
        return SourceError(f"{self.path} {why}", fix)


def read_reports(given: Sequence[str]) -> list[Report]:
    """Read `report.json`, a folder that holds one, or `NAME=` either.

    Raises:
        SourceNotFound: there is none.
        SourceError: one is damaged, of another kind, or of another base than the first.
    """
    reports = [_read(entry) for entry in given]
    first = reports[0]
    for other in reports[1:]:
        if other.content["base"]["fingerprint"] != first.content["base"]["fingerprint"]:
            why = f"is of another base ({other.content['base']['source']}) than {first.path}"
            raise other.refused(why, "compare models that were tuned from one base")
    return reports


def _read(entry: str) -> Report:
    named = None if Path(entry).expanduser().exists() else _NAMED.fullmatch(entry)
    name, path = (named[1], Path(named[2]).expanduser()) if named else (None, Path(entry).expanduser())
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        raise SourceNotFound(f"no report at {file}", "name the report.json that keeptune audit wrote, or its folder")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file} is damaged: it is no JSON", _AGAIN) from error
    if isinstance(content, dict) and content.get("kind") != KIND:
        kind = f"{content.get('kind')!r:.40}"
        raise SourceError(f"{file} is a report of another kind ({kind})", "name reports of keeptune audit BASE TUNED")
    try:
        _check(content)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{file} is damaged, or no report of keeptune audit ({error!r})", _AGAIN) from error
    return Report(path=str(file), name=name, content=content)


def _check(content: Any) -> None:
    """Touch everything that is read from a report later."""
    for side in ("base", "tuned"):
        for key in ("source", "fingerprint"):
            _require(content[side][key], str)
    for name, reading in _require(content["texts"], dict).items():
        _require(reading["documents"], int)
        _require(reading["tokens"], int)
        for measure in (*FLOOR_MEASURES, *OF_BASE):
            _check_interval(reading["measures"][measure])
            _require(reading["measures"][measure]["documents"], int)
        for measure in FLOOR_MEASURES:
            _require(floor_of(content, name, measure), (int, float))
    for task in _require(content.get("tasks", {}), dict).values():
        _require(task["asked"], list)
        _require(task["right"], str)
        for result in _require(task["formats"], dict).values():
            _check_interval(result[task["headline"]]["change"])
            for count in ("items", "right_to_wrong", "wrong_to_right"):
                _require(result[task["headline"]][count], int)


def _check_interval(interval: dict[str, Any]) -> None:
    ends = [interval[end] for end in ("value", "low", "high")]
    for end in ends[:1] if ends[1:] == [None, None] else ends:
        if not math.isfinite(_require(end, (int, float))):
            raise ValueError(f"{end} is no number")


def _require(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is not of the kind that stands there")
    return value


def short_names(sources: Sequence[str]) -> list[str]:
    """Each source by the fewest last parts of its path that no other source ends in.

    `["runs/a/model", "runs/b/model"]` → `["a/model", "b/model"]`; sources that are equal stay equal, in full.
    """
    parts = [PurePath(source).parts or (source,) for source in sources]
    names = []
    for own, source in zip(parts, sources, strict=True):
        tails = ["/".join(own[-count:]) for count in range(1, len(own) + 1)]
        others = [["/".join(other[-count:]) for other in parts] for count in range(1, len(own) + 1)]
        names.append(next((tail for tail, of in zip(tails, others, strict=True) if of.count(tail) == 1), source))
    return names


def row_names(report: dict[str, Any]) -> list[tuple[str, str]]:
    """For the base and each stage `("stage 1", "the checkpoint's short name")`."""
    sources = [report["base"]["source"], *(checkpoint["source"] for checkpoint in report["checkpoints"])]
    stages = ["base", *(f"stage {checkpoint['stage']}" for checkpoint in report["checkpoints"])]
    return list(zip(stages, short_names(sources), strict=True))


def columns_of(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The columns of texts, or of tasks, in the order of R."""
    return [column for column in report["columns"] if column["kind"] == kind]
