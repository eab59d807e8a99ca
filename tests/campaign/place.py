"""Places that a developer's machine is not: a folder in use, other clocks and locales, no home, no network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.bench import PATIENCE, Bench, Row, Verb, chance_of, differing, last_line
from tests.campaign.shim import has_shim, read_log
from tests.helpers.ranks import KEEPTUNE, end, launch

PART = "place"
_TWO = 10
_NOWHERE = "/proc/no-home"
_CLOCKS = {"1976": "-1600000000", "2058": "1000000000"}
_CACHES = ("KEEPTUNE_CACHE", "HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")
_PLACES = ("locale C", "no home", "read-only caches", "no network", *(f"clock of {year}" for year in _CLOCKS))
_NEED_SHIM = ("read-only caches", "no network", *(f"clock of {year}" for year in _CLOCKS))


def subjects(bench: Bench) -> Iterator[str]:
    """Each verb in each place."""
    verbs = [verb.name for verb in bench.verbs.values() if PART in verb.parts]
    yield from (f"two processes: {name}" for name in verbs)
    yield from (f"{place}: {name}" for place in _PLACES for name in verbs if has_shim() or place not in _NEED_SHIM)
    yield "a hub's name without a network: replay"


def trials(bench: Bench, subject: str) -> int:
    """Places have one trial; the moment at which the second of two processes starts is drawn anew."""
    return _TWO if subject.startswith("two processes") else 1


def trial(bench: Bench, subject: str, number: int) -> Row:
    """Run the command there."""
    place, _, name = subject.partition(": ")
    row: Row = {"subject": subject, "trial": number}
    if place == "two processes":
        return {**row, **_two(bench, bench.verbs[name], number)}
    with bench.trial_folder("place") as folder:
        log = folder / "shim.log"
        if name == "replay" and place.startswith("a hub's"):
            words = ("replay", "nobody/nothing", "--out", folder / "out")
            given = {**bench.environment(folder / "home"), "CAMPAIGN_NO_NET": "1", "HF_HUB_OFFLINE": "0"}
            ((code, said),) = end(launch(1, *KEEPTUNE, *words, **given), PATIENCE)
            clear = code == 2 and "Traceback" not in said
            return {**row, "passed": clear, "outcome": "refused" if clear else f"exit code {code}: {last_line(said)}"}
        verb = bench.verbs[name]
        _, expected = bench.whole(verb)
        if place == "locale C":
            code, said = _in_locale_c(bench, verb, folder)
        else:
            code, said = bench.run(verb, folder / "out", **_environment(place, folder, log))
        asked = sum(line.startswith("connect") for line in read_log(log))
        if code == 0:
            found = verb.result(folder / "out")
            told = f"{asked} connections asked for" if place == "no network" else "equal"
            return {**row, "passed": found == expected and not asked,
                    "outcome": told if found == expected else str(differing(expected, found)[:3])}  # fmt: skip
        clear = code == 2 and "Traceback" not in said and place == "read-only caches"
        return {**row, "passed": clear, "outcome": f"exit code {code}: {last_line(said)}"}


def _environment(place: str, folder: Path, log: Path) -> dict[str, str]:
    if place == "no home":
        return {"HOME": _NOWHERE, **dict.fromkeys(_CACHES, _NOWHERE)}
    if place == "read-only caches":
        home, read_only = folder / "home", "30"
        home.mkdir()
        return {"CAMPAIGN_FOLDER": str(home), "CAMPAIGN_AT": "1", "CAMPAIGN_STAYS": "1", "CAMPAIGN_ERRNO": read_only}
    if place == "no network":
        return {"CAMPAIGN_NO_NET": "1", "CAMPAIGN_LOG": str(log), "HF_HUB_OFFLINE": "0"}
    return {"CAMPAIGN_CLOCK": _CLOCKS[place.removeprefix("clock of ")]}


def _in_locale_c(bench: Bench, verb: Verb, folder: Path) -> tuple[int, str]:
    """In an interpreter of its own, which reads its locale when it starts, with a name that ASCII has not."""
    given = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    out = folder / "ausgabe-ü"
    command = [sys.executable, *KEEPTUNE, *map(str, verb.words), "--out", str(out)]
    environment = {**os.environ, **bench.environment(folder / "home"), **given}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if out.is_dir():
        out.rename(folder / "out")
    return done.returncode, done.stderr


def _two(bench: Bench, verb: Verb, number: int) -> Row:
    """The same command twice, the second after a random time: one is refused, and the other is not disturbed."""
    seconds, expected = bench.whole(verb)
    seed, chance = chance_of(PART, verb.name, number)
    more = verb.resume if number % 2 else ()
    for _ in range(8):
        with bench.trial_folder("two") as folder:
            out, after = folder / "out", seconds * chance.random()
            (first,) = bench.start(verb, out)
            time.sleep(after)
            (second,) = bench.start(verb, out, *more)
            while first.poll() is None and second.poll() is None:
                time.sleep(0.005)
            if second.poll() is None:  # the first had ended, or was itself refused
                first, second = second, first
            (second_code, said), (first_code, error) = end([second], PATIENCE)[0], end([first], PATIENCE)[0]
            if (second_code, first_code) == (0, 0):
                continue  # one after the other
            row: Row = {"seed": seed, "after_s": round(after, 2)}
            refused = second_code == 2 and ("another process is writing" in said or "already contains a run" in said)
            if not refused or first_code != 0:
                said = f"{second_code}: {last_line(said)}; {first_code}: {last_line(error)}"
                return {**row, "passed": False, "outcome": said}
            passed = verb.result(out) == expected
            return {
                **row,
                "passed": passed,
                "outcome": "one refused, one equal" if passed else "one refused, one other",
            }
    raise TimeoutError(f"{verb.name}: never at the same time")
