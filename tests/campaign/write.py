"""A write that fails, each in turn: the disk is full from there on, or the device fails once.

A write is any call that makes, fills, syncs or renames a file or a folder below the output or the caches. The command
must explain the error or do without what it could not write, and the same command on a sound disk must then come to the
result of a run that nothing disturbed: so no file was left corrupt.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from tests.campaign.bench import Bench, Row, differing, last_line
from tests.campaign.shim import has_shim, read_log

PART = "write"
MOST = 120
"""Writes of a command that are tried: all, or so many that are evenly spread."""
_ERRORS = {"full disk": errno.ENOSPC, "failing device": errno.EIO}
_COUNTS: dict[str, list[str]] = {}


def subjects(bench: Bench) -> Iterator[str]:
    """Each verb with each error; none without a compiler for the shim."""
    for verb in bench.verbs.values() if has_shim() else ():
        if PART in verb.parts:
            yield from (f"{verb.name}: {error}" for error in _ERRORS)


def trials(bench: Bench, subject: str) -> int:
    """As many as the command has writes."""
    return min(MOST, len(_writes(bench, subject.partition(":")[0])))


def _writes(bench: Bench, name: str) -> list[str]:
    """Every write of a command that nothing disturbs."""
    if name not in _COUNTS:
        with bench.trial_folder("count") as folder:
            log = bench.folder / "count.log"
            log.unlink(missing_ok=True)
            environment = {"CAMPAIGN_FOLDER": str(folder), "CAMPAIGN_LOG": str(log)}
            code, said = bench.run(bench.verbs[name], folder / "out", **environment)
            assert code == 0, said
            _COUNTS[name] = [line for line in read_log(log) if str(folder) in line and not line.startswith("outside")]
    return _COUNTS[name]


def trial(bench: Bench, subject: str, number: int) -> Row:
    """Let one write fail, then run the same command on a sound disk."""
    name, _, error = subject.partition(": ")
    verb, writes = bench.verbs[name], _writes(bench, name)
    at = 1 + number * len(writes) // min(MOST, len(writes))
    _, expected = bench.whole(verb)
    with bench.trial_folder("write") as folder:
        out = folder / "out"
        environment = {"CAMPAIGN_FOLDER": str(folder), "CAMPAIGN_AT": str(at), "CAMPAIGN_ERRNO": str(_ERRORS[error])}
        if error == "full disk":
            environment["CAMPAIGN_STAYS"] = "1"
        code, said = bench.run(verb, out, **environment)
        what = writes[at - 1].replace(str(folder), "")
        row: Row = {
            "subject": subject,
            "trial": number,
            "write": at,
            "of": len(writes),
            "what": what[:80],
            "code": code,
        }
        if code not in (0, 2) or "Traceback" in said:
            return {**row, "passed": False, "outcome": f"not explained: {last_line(said)}"}
        again, said_then = bench.run(verb, out, *verb.resume)
        if again != 0:
            return {**row, "passed": False, "outcome": f"then exit code {again}: {last_line(said_then)}"}
        found = verb.result(out)
        if found != expected:
            return {**row, "passed": False, "outcome": f"then other: {differing(expected, found)[:3]}"}
        return {**row, "passed": True, "outcome": "explained, then equal" if code else "done without, equal"}
