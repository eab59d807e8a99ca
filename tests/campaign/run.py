"""A campaign against keeptune: kills, flipped bits, failing disks, bad and hostile input; docs/reliability.md.

    python -m tests.campaign.run                       # whatever is missing of every part, at most ten minutes
    python -m tests.campaign.run kill --minutes 5      # of one part
    python -m tests.campaign.run kill --again          # trials that failed, once more

A trial appends its row, with its seed, to docs/reliability/PART.jsonl as soon as it ends, so that the campaign goes on
where it was stopped. The page is made from these rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import ModuleType

from tests.campaign import flip, hostile, inputs, kill, page, place, write
from tests.campaign.bench import Bench, append, rows_of
from tests.campaign.shim import load_shim

PARTS: dict[str, ModuleType] = {part.PART: part for part in (kill, flip, write, hostile, inputs, place)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=10**6, help="of each subject at most")
    parser.add_argument("--subject", default="", help="subjects with this in their name only")
    parser.add_argument("--again", action="store_true", help="the trials that failed, once more")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    load_shim()
    until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(folder=Path(folder).resolve())
        for name in arguments.parts or PARTS:
            work(PARTS[name], bench, arguments, until)
    page.write()


def work(part: ModuleType, bench: Bench, arguments: argparse.Namespace, until: float) -> None:
    """The trials of a part that are missing, in turn over its subjects, until the time is over."""
    passed = {(row["subject"], row["trial"]): row["passed"] for row in rows_of(part.PART)}
    subjects = [name for name in part.subjects(bench) if arguments.subject in name]
    for number in range(arguments.trials):
        left = [name for name in subjects if number < part.trials(bench, name)]
        if not left:
            return
        for subject in left:
            wanted = passed.get((subject, number)) is (False if arguments.again else None)
            if wanted and time.monotonic() > until:
                return
            if wanted:
                begin = time.monotonic()
                row = part.trial(bench, subject, number)
                append(part.PART, row)
                print(f"{time.monotonic() - begin:5.1f} s", row, flush=True)


if __name__ == "__main__":
    main()
