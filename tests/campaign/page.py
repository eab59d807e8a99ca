"""docs/reliability.md, from the rows of all trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.campaign.bench import Row, rows_of

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_INTRO = """# Reliability

What a campaign against keeptune came to: processes killed, bits flipped, disks that fail, input that is bad or hostile.
`make campaign` runs whatever is missing of it, ten minutes at a time, on models of two layers: the machinery is that of
large runs, the arithmetic is not. This page is made from the raw rows, one a trial, each with its seed where anything
was drawn. *Failed at first* counts trials that failed once: the fault was mended and has a test of its kind, and the
trial was made again.
"""
_PARTS = {
    "kill": """## SIGKILL at a random moment

The command is killed after a time that is drawn from that of a whole run, and started again. Of two processes one is
killed, then the other, as a launcher does. *Passed* means that all is as in a run that nothing disturbed: every byte of
a pool, every byte of the model and every reading of a run, every finding of a report, every run and the choice of a
plan.""",
    "flip": """## A flipped bit

One bit at a random place of a random file of the kind; ten trials of twenty bits. *Found*: refused in words, or made
again. *Without effect*: the reader read the same as before, as from a flipped space.""",
    "write": """## A write that fails

Each call that makes, fills, syncs or renames a file fails in turn; of more than 120 so many, evenly spread. The disk is
full from there on, or the device fails once (EIO). A library that is loaded before the C library does it. The command
must explain it, or do without the file. The same command on a sound disk must then come to the result of an undisturbed
run.""",
    "input": """## Bad input

One message of what is wrong and what to do, exit code 2, no traceback, nothing left behind.""",
    "hostile": """## Hostile input

The C library's calls are watched: no program is started, no connection asked for, no file opened for writing outside
the output folder and the caches. The exit code is 0, or 2 with a message.""",
    "place": """## Other places

Two processes on one folder: one is refused, the other's result is that of a run alone. Elsewhere the result is the
same; with caches that cannot be written it may be a message instead.""",
}


def write() -> None:
    """Write the page."""
    lines = [_INTRO]
    for part, about in _PARTS.items():
        rows = rows_of(part)
        file = f"reliability/{part}.jsonl"
        lines += [about, "", *(table(rows) if rows else ["Not run yet."]), ""]
        if rows:
            failed = [row for row in latest(rows) if not row["passed"]]
            lines += [f"- {row['subject']}, trial {row['trial']}: {_escaped(row['outcome'])}" for row in failed]
            lines += [""] * bool(failed) + [f"Raw rows: [{part}.jsonl]({file}).", ""]
    _PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def latest(rows: list[Row]) -> list[Row]:
    """The last row of each trial."""
    return list({(row["subject"], row["trial"]): row for row in rows}.values())


def table(rows: list[Row]) -> Iterator[str]:
    """A row for each subject."""
    last, flips = latest(rows), "found" in rows[0]
    head = ["", "trials", "passed", "failed at first"] + ["bits found", "without effect"] * flips
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for subject in dict.fromkeys(row["subject"] for row in rows):
        own = [row for row in last if row["subject"] == subject]
        first = {row["trial"] for row in rows if row["subject"] == subject and not row["passed"]}
        cells = [subject, len(own), sum(row["passed"] for row in own), len(first)]
        cells += [sum(row["found"] for row in own), sum(row["same"] for row in own)] if flips else []
        yield f"| {' | '.join(map(str, cells))} |"
    yield f"| **all** | {len(last)} | {sum(row['passed'] for row in last)} | |{' | |' * flips}"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")
