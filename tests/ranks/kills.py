"""Processes that write a pool together, one of them killed at random, twenty times: all go on to the same pool.

    python -m tests.ranks.kills --trials 20        # writes docs/ranks.json; resumes

Each trial starts 2, 3 or 4 processes, kills one of them (SIGKILL) after a random time, waits for the others to end by
themselves, and lets another number of processes finish the pool. Shards that were written before the kill must not be
written again, and the bytes must be those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from keeptune.storage import sha256_file, write_json
from keeptune.system import provenance
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.ranks import KEEPTUNE, end, launch

RESULT = Path(__file__).parents[2] / "docs" / "ranks.json"
PATIENCE = 30.0
SHARDS = ["--tokens", "640", "--length", "16", "--seed", "3", "--rows-per-shard", "4"]
# A shard of the tiny model takes no time: with this pause the kill falls anywhere between start and end.
SCRIPT = """
import time
from keeptune.cli import main
from keeptune.replay.engines.torch import TorchEngine
whole = TorchEngine.sample
def sample(self, *given):
    time.sleep(0.3)
    return whole(self, *given)
TorchEngine.sample = sample
main()
"""


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def trial(number: int, base: Path, expected: dict[str, str], work: Path) -> dict[str, Any]:
    """One kill, and what became of it."""
    chance = random.Random(number)
    world, after = chance.choice([2, 2, 3, 4]), chance.choice([1, 2, 3])
    victim, pool, script = chance.randrange(world), work / f"pool-{number}", work / "script.py"
    script.write_text(SCRIPT)
    processes = launch(world, script, "replay", base, "--out", pool, *SHARDS)
    # Half of the kills fall before the first shard: while models load, openings are probed, or the pool is started.
    wait_for = chance.choice([0, chance.randrange(1, 7)])
    start = time.monotonic()
    while len(list(pool.glob("shard-*"))) < wait_for and processes[victim].poll() is None:
        if time.monotonic() - start > 300:
            raise TimeoutError(f"trial {number}: no shard {wait_for}")
        time.sleep(0.01)
    time.sleep(chance.random() * (3.0 if wait_for == 0 else 0.4))
    killed = processes[victim].poll() is None
    if killed:
        os.kill(processes[victim].pid, signal.SIGKILL)
    moment = time.monotonic()
    by_launcher = _end_as_a_launcher(processes)
    codes = [code for code, _ in end(processes, timeout=300)]
    waited = time.monotonic() - moment
    kept = {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}
    finished = [code for code, _ in end(launch(after, *KEEPTUNE, "replay", base, "--out", pool, *SHARDS), timeout=300)]
    again = [name for name, when in kept.items() if (pool / name).stat().st_mtime_ns != when]
    found = bytes_of(pool)
    return {
        "trial": number,
        "processes": world,
        "victim": victim,
        "killed": killed,
        "shards_before": len(kept),
        "codes": codes,
        "others_ended_after_s": round(waited, 1),
        "ended_by_launcher": by_launcher,
        "finished_by": after,
        "finished": finished,
        "written_again": again,
        "same_bytes": found == expected,
        "differing": sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name)),
    }


def _end_as_a_launcher(processes: list[Forked]) -> bool:
    """What torchrun does when a process dies: it ends the others. Here they first have time to end by themselves.

    They cannot where the dead one had not joined their group: torch waits for it for half an hour.
    """
    until = time.monotonic() + PATIENCE
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.1)
    late = [process for process in processes if process.poll() is None]
    for process in late:
        process.send_signal(signal.SIGTERM)
    return bool(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    arguments = parser.parse_args()
    done = json.loads(RESULT.read_text())["trials"] if RESULT.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_model(tie=False).save_pretrained(work / "base")
        make_tokenizer().save_pretrained(work / "base")
        ((code, text),) = end(launch(1, *KEEPTUNE, "replay", work / "base", "--out", work / "alone", *SHARDS))
        assert code == 0, text
        expected = bytes_of(work / "alone")
        for number in range(len(done), arguments.trials):
            done.append(trial(number, work / "base", expected, work))
            same = sum(row["same_bytes"] and not row["written_again"] for row in done)
            write_json(RESULT, {"same": same, "of": len(done), **provenance(0), "trials": done})
            print(json.dumps(done[-1]), flush=True)


if __name__ == "__main__":
    main()
