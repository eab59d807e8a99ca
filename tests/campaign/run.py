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

from tests.campaign import kill
from tests.campaign.bench import Bench, append, rows_of

PARTS: dict[str, ModuleType] = {part.PART: part for part in (kill,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trials", type=int, help="of each subject; default what the part needs")
    parser.add_argument("--subject", help="one subject only")
    parser.add_argument("--again", action="store_true", help="the trials that failed, once more")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder=Path(folder))
        for name in arguments.parts or PARTS:
            work(PARTS[name], bench, arguments, until)


def work(part: ModuleType, bench: Bench, arguments: argparse.Namespace, until: float) -> None:
    """The trials of a part that are missing, in turn over its subjects, until the time is over."""
    last = {(row["subject"], row["trial"]): row["passed"] for row in rows_of(part.PART)}
    for number in range(arguments.trials or part.TRIALS):
        for subject in part.subjects(bench):
            if arguments.subject not in (None, subject) or last.get((subject, number)) is (not arguments.again):
                continue
            if arguments.again and (subject, number) not in last:
                continue
            if time.monotonic() > until:
                return
            begin = time.monotonic()
            row = part.trial(bench, subject, number)
            append(part.PART, row)
            print(f"{time.monotonic() - begin:5.1f} s", row, flush=True)


if __name__ == "__main__":
    main()
