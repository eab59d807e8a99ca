"""One bit flipped in a file that keeptune keeps: the reader refuses it, makes it again, or reads the same as before."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from keeptune.errors import KeeptuneError
from keeptune.models.disk.wheels import build_once
from keeptune.plan.pilot import pilot
from keeptune.plan.settings import PlanSettings
from keeptune.replay.pool import ReplayPool
from keeptune.runs.folder import check_folder, workspace
from keeptune.runs.run import check_state
from keeptune.runs.settings import TuneSettings
from keeptune.storage import checksums
from keeptune.train.callbacks.checkpoint import check_files, last_good_checkpoint
from keeptune.workspace import Steps
from tests.campaign.bench import Bench, Row, chance_of
from tests.helpers.models import make_model

PART = "flip"
FLIPS = 20
"""Bits of a trial, each flipped alone."""


class MadeAgainError(Exception):
    """The reader found the damage, and makes the content again."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kind of file, and how keeptune reads it."""

    files: list[Path]
    read: Callable[[], Any]


def subjects(bench: Bench) -> Iterator[str]:
    """Each kind of file."""
    yield from _kept(bench)


def trials(bench: Bench, name: str) -> int:
    """How many of a subject: 200 flips."""
    return 200 // FLIPS


def trial(bench: Bench, name: str, number: int) -> Row:
    """Flip some bits of one kind of file, each alone; with what became of them."""
    kept, (seed, chance) = _kept(bench)[name], chance_of(PART, name, number)
    whole, counts, missed = kept.read(), {"found": 0, "same": 0}, []
    for _ in range(FLIPS):
        file = chance.choice(kept.files)
        place, bit = chance.randrange(file.stat().st_size), chance.randrange(8)
        outcome = _flip(file, place, bit, kept.read, whole)
        if outcome in counts:
            counts[outcome] += 1
        else:
            missed.append(f"{file.name} at {place}, bit {bit}: {outcome}")
    row = {"subject": name, "trial": number, "seed": seed, **counts, "missed": missed}
    return {**row, "passed": not missed, "outcome": f"{counts['found']} found, {counts['same']} without effect"}


def _flip(file: Path, place: int, bit: int, read: Callable[[], Any], whole: Any) -> str:
    before = file.read_bytes()
    damaged = bytearray(before)
    damaged[place] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        return "same" if read() == whole else "read as if it were whole"
    except (KeeptuneError, MadeAgainError):
        return "found"
    except Exception as error:  # what a user would see as a traceback
        return f"{type(error).__name__}: {str(error)[:80]}"
    finally:
        file.write_bytes(before)


_KEPT: dict[str, Kept] = {}


def _kept(bench: Bench) -> dict[str, Kept]:
    """All kinds of files, written once by the commands themselves."""
    if not _KEPT:
        folder = bench.folder / "kept"
        _KEPT.update({**_pools(bench, folder), **_runs(bench, folder), **_steps(bench, folder), **_cache(folder)})
    return _KEPT


def _pools(bench: Bench, folder: Path) -> dict[str, Kept]:
    kinds = {}
    for name, more in (("hidden", ()), ("topk", ("--predictions", "topk", "--top-k", "4"))):
        out = folder / f"pool-{name}"
        code, said = bench.run(bench.verbs["replay"], out, *more)
        assert code == 0, said

        def read(out: Path = out) -> Any:
            pool = ReplayPool.open(out)
            batch = pool.batch(torch.arange(pool.rows))
            return str(asdict(pool.settings)), pool.rows, str(list(vars(batch).values()))

        kinds[f"pool: manifest ({name})"] = Kept(files=[out / "manifest.json"], read=read)
        kinds[f"pool: shards ({name})"] = Kept(files=sorted(out.glob("shard-*")), read=read)
    return kinds


def _runs(bench: Bench, folder: Path) -> dict[str, Kept]:
    kinds = {}
    for name, more in (("full", ()), ("adapter", ("--lora", "2")), ("budget", ("--budget", "0.05"))):
        out = folder / f"run-{name}"
        (process,) = bench.start(bench.verbs["tune"], out, *more)
        until = time.monotonic() + 300
        while not (out / "checkpoint-8" / "complete").is_file():
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
        checkpoint = last_good_checkpoint(out)
        assert checkpoint is not None

        def read(checkpoint: Path = checkpoint) -> Any:
            check_files(checkpoint)
            check_state(checkpoint)
            files = checksums(checkpoint)
            return {name: of for name, of in files.items() if name != "complete"}, _first(checkpoint)

        def read_run(out: Path = out, given: str = (out / "run.json").read_text()) -> Any:
            check_folder(out, TuneSettings(**json.loads(given)["settings"]), resume=True, overwrite=False)
            return workspace(out).day

        for file in sorted(path for path in checkpoint.iterdir() if path.is_file()):
            if name == "full" or file.suffix == ".safetensors" or file.name == "trainer_state.json":
                kinds[f"checkpoint: {file.name} ({name})"] = Kept(files=[file], read=read)
        kinds[f"run: run.json ({name})"] = Kept(files=[out / "run.json"], read=read_run)
        kinds[f"run: runs.jsonl ({name})"] = Kept(files=[out / "runs.jsonl"], read=read)
    return kinds


def _first(checkpoint: Path) -> bytes:
    """The readings that a resume keeps."""
    step = int(checkpoint.name.rpartition("-")[2])
    lines = (checkpoint.parent / "runs.jsonl").read_bytes().splitlines()
    return b"\n".join(lines[: step // 2 + 1])


def _steps(bench: Bench, folder: Path) -> dict[str, Kept]:
    out = folder / "audit"
    code, said = bench.run(bench.verbs["audit"], out)
    assert code == 0, said
    steps = Steps(folder / "steps", models="these")
    contents = {file.stem: json.loads(file.read_text())["content"] for file in sorted(out.glob("steps/*.json"))}
    for name, content in contents.items():
        steps.once(name, lambda content=content: content)

    def again() -> Any:
        raise MadeAgainError

    def read() -> Any:
        return [steps.once(name, again) for name in contents]

    kinds = {"audit: steps": Kept(files=sorted((folder / "steps").iterdir()), read=read)}
    plan = bench.verbs["plan"]
    code, said = bench.run(plan, folder / "plan")
    assert code == 0, said
    words = dict(zip(plan.words[3::2], plan.words[4::2], strict=True))
    given = PlanSettings(
        model=str(plan.words[1]),
        data=str(plan.words[2]),
        out=str(folder / "plan"),
        budget=float(str(words["--budget"])),
        minutes=float(str(words["--minutes"])),
        max_rank=int(str(words["--max-rank"])),
        learning_rate=float(str(words["--learning-rate"])),
        batch_size=int(str(words["--batch-size"])),
        max_length=int(str(words["--max-length"])),
    )
    files = [path for path in (folder / "plan").glob("*.json") if path.name != "plan.json"]
    cells = [path for path in (folder / "plan").glob("cells/*/*") if path.name in ("cell.json", "runs.jsonl")]
    kinds["plan: steps and cells"] = Kept(files=sorted([*files, *cells]), read=lambda: pilot(given))
    return kinds


def _cache(folder: Path) -> dict[str, Kept]:
    model = build_once(folder / "cache" / "model", lambda into: make_model().save_pretrained(into))
    number = random.Random(0)

    def build(_: Path) -> None:
        raise MadeAgainError

    def read() -> Any:
        # A process holds a folder against its checksums once: each reading has a folder of its own.
        copy = folder / "cache" / f"copy-{number.getrandbits(64)}"
        shutil.copytree(model, copy)
        try:
            found = checksums(build_once(copy, build))
            return {name: of for name, of in found.items() if not name.startswith(".")}
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    return {"cache: a converted model": Kept(files=sorted(model.iterdir()), read=read)}
