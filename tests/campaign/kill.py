"""SIGKILL at a random moment, then the same command again: its result is that of a run that nothing disturbed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait

from tests.campaign.bench import PATIENCE, Bench, Row, Verb, chance_of, differing, last_line
from tests.helpers.forked import Forked
from tests.helpers.ranks import end

PART = "kill"
_TRIES = 8


def subjects(bench: Bench) -> Iterator[str]:
    """Each verb."""
    yield from (verb.name for verb in bench.verbs.values() if PART in verb.parts)


def trials(bench: Bench, name: str) -> int:
    """How many of a subject."""
    return 50


def trial(bench: Bench, name: str, number: int) -> Row:
    """Kill at a moment drawn from the time of a whole run; where the command ended before it, draw again."""
    verb = bench.verbs[name]
    seconds, expected = bench.whole(verb)
    seed, chance = chance_of(PART, name, number)
    for _ in range(_TRIES):
        with bench.trial_folder("kill") as folder:
            out, after = folder / "out", seconds * chance.random()
            processes = bench.start(verb, out)
            if not _killed(processes, after, chance.randrange(verb.world)):
                continue
            left = sum(path.is_file() for path in out.rglob("*"))
            code, said = bench.run(verb, out, *verb.resume)
            found = verb.result(out) if code == 0 else None
            row: Row = {"subject": name, "trial": number, "seed": seed, "after_s": round(after, 2), "files_left": left}
            if code != 0:
                return {**row, "passed": False, "outcome": f"exit code {code}: {last_line(said)}"}
            passed = found == expected
            return {**row, "passed": passed, "outcome": "equal" if passed else str(differing(expected, found)[:3])}
    raise TimeoutError(f"{name}, trial {number}: ended before every kill")


def _killed(processes: list[Forked], after: float, victim: int) -> bool:
    """Kill one of the processes after so many seconds, and the others, as a launcher does; False if it had ended."""
    wait([processes[victim].sentinel], after)
    alive = processes[victim].poll() is None
    processes[victim].kill()
    if len(processes) > 1:
        time.sleep(0.2)
    for process in processes:
        process.kill()
    codes = [code for code, _ in end(processes, PATIENCE)]
    return alive and codes[victim] == -signal.SIGKILL


def describe(verb: Verb) -> str:
    """The command, as the page shows it."""
    return " ".join(map(str, verb.words))
