"""Workers of Ray that write a pool, killed (SIGKILL) at random, twenty of them: all pools end as those without Ray.

    python -m tests.cluster.kills --trials 5        # four kills each; writes docs/ray.json; resumes

A third of the kills falls on any worker at once, also one that still loads the base; the others after a random number
of shards. Shards that were written before a kill must not be written again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from keeptune.cluster import start_ray
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.replay.begin import Sampling
from keeptune.replay.generate import sample_pool
from keeptune.replay.on_ray import sample_on_ray
from keeptune.storage import sha256_file, write_json
from keeptune.system import provenance
from tests.cluster.slow import SlowEngine
from tests.helpers.models import make_model, make_tokenizer

RESULT = Path(__file__).parents[2] / "docs" / "ray.json"
KILLS, SHARDS, LENGTH, ROWS = 4, 24, 16, 4
TOKENS = SHARDS * ROWS * LENGTH


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def workers() -> list[psutil.Process]:
    """The processes of the actors that write."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "_Worker" in "".join(_words(child))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def written(pool: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}


def kill_some(pool: Path, chance: random.Random, done: threading.Event, kills: list[dict[str, Any]]) -> None:
    while len(kills) < KILLS and not done.is_set():
        more = chance.choice([0, chance.randrange(1, 4), chance.randrange(1, 4)])
        before = len(written(pool))
        while len(written(pool)) < before + more and not done.is_set():
            time.sleep(0.01)
        time.sleep(chance.random() * 2 * (more == 0) + chance.random() * 0.4)
        found = workers()
        if not found:
            continue
        kept, victim = written(pool), chance.choice(found)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(timeout=30)
        kills.append({"shards_before": len(kept), "workers": len(found), "kept": kept})


def trial(number: int, base: Path, expected: dict[str, str], work: Path) -> dict[str, Any]:
    """One pool whose workers are killed, and what became of it."""
    pool, chance, done = work / f"pool-{number}", random.Random(number), threading.Event()
    kills: list[dict[str, Any]] = []
    killer = threading.Thread(target=kill_some, args=(pool, chance, done, kills))
    killer.start()
    sampling = Sampling(length=LENGTH, seed=3, rows_per_shard=ROWS, engine=SlowEngine)
    count = chance.choice([2, 3])
    try:
        sample_on_ray(str(base), load_tokenizer(str(base)), pool, workers=count, tokens=TOKENS, sampling=sampling)
        fault = ""
    except Exception as error:
        fault = repr(error)
    done.set()
    killer.join()
    last = written(pool)
    again = sorted({name for kill in kills for name, when in kill.pop("kept").items() if last.get(name) != when})
    return {
        "trial": number,
        "workers": count,
        "kills": kills,
        "fault": fault,
        "written_again": again,
        "same_bytes": bytes_of(pool) == expected,
    }


def make_base(folder: Path) -> Path:
    make_model(tie=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def alone(base: Path, pool: Path) -> dict[str, str]:
    """The pool that this process writes, without Ray."""
    model = load_model(str(base))
    select_attention(model, LENGTH)
    how = {"length": LENGTH, "seed": 3, "rows_per_shard": ROWS}
    sample_pool(model, load_tokenizer(str(base)), pool, tokens=TOKENS, **how)
    return bytes_of(pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    arguments = parser.parse_args()
    done = json.loads(RESULT.read_text(encoding="utf-8"))["trials"] if RESULT.is_file() else []
    ray = start_ray()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = make_base(work / "base")
        expected = alone(base, work / "alone")
        for number in range(len(done), arguments.trials):
            done.append(trial(number, base, expected, work))
            good = [row for row in done if row["same_bytes"] and not row["written_again"] and not row["fault"]]
            count = {"kills": sum(len(row["kills"]) for row in done), "same": sum(len(row["kills"]) for row in good)}
            write_json(RESULT, {**count, "ray": ray.__version__, **provenance(0), "trials": done})
            print(json.dumps(done[-1]), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
