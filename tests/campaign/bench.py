"""What the campaign breaks: commands on tiny models, what each leaves behind, and the rows that its trials append."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from keeptune.storage import append_line, read_lines, sha256_file
from keeptune.system import commit
from keeptune.train.readings import read_rows
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.ranks import KEEPTUNE, end, launch

ROWS = Path(__file__).parents[2] / "docs" / "reliability"
_CLOCK = {"seconds", "tokens_per_second", "wall", "memory", "machine", "versions", "pace", "commit", "date", "command"}
_SETTINGS = ("settings", "python", "platform")

PATIENCE = 1800.0
"""Seconds that a command of a few seconds may take on a machine that others use."""
Row = dict[str, Any]
Words = tuple[str | Path, ...]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A command that writes a folder."""

    name: str
    words: Words
    result: Callable[[Path], Any]
    """What the folder holds, as a JSON value: equal for two runs that did the same, whatever they took."""
    world: int = 1
    resume: tuple[str, ...] = ()
    """What is added to continue."""
    parts: tuple[str, ...] = ("kill", "write", "place")
    """Which parts of the campaign try it."""


@dataclass(kw_only=True)
class Bench:
    """Models, data and a folder for each trial, on one machine."""

    folder: Path
    verbs: dict[str, Verb] = field(default_factory=dict)
    _whole: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, seed in (("base", 0), ("tuned", 1)):
            make_model(seed=seed).save_pretrained(self.folder / name)
            make_tokenizer().save_pretrained(self.folder / name)
        texts = self.folder / "texts"
        texts.mkdir()
        for number in range(12):
            (texts / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 5)
        question = {"question": "Which is one?", "choices": ["one", "two", "three"], "answer": 0}
        (self.folder / "task.jsonl").write_text("\n".join(json.dumps(question) for _ in range(12)))
        (self.folder / "goals.txt").write_text("\n".join(f"Do bad thing {number}." for number in range(12)))
        (self.folder / "fp32.toml").write_text("[sft]\nbf16 = false\n")
        self.verbs = {verb.name: verb for verb in _verbs(self.folder)}

    def environment(self, home: Path) -> dict[str, str]:
        """A user's own: no cache and no home but `home`, no hub."""
        given = {"HOME": home, "KEEPTUNE_CACHE": home / "keeptune", "HF_HOME": home / "hub", "MPLCONFIGDIR": home}
        return {**{name: str(path) for name, path in given.items()}, "HF_HUB_OFFLINE": "1"}

    def start(self, verb: Verb, out: Path, *more: str, **environment: str) -> list[Forked]:
        """Start the processes of a command that writes to `out`."""
        given = {**self.environment(out.parent / "home"), **environment}
        return launch(verb.world, *KEEPTUNE, *verb.words, "--out", out, *more, **given)

    def run(self, verb: Verb, out: Path, *more: str, **environment: str) -> tuple[int | None, str]:
        """Run to the end: the worst exit code, and what its process wrote to stderr."""
        ended = end(self.start(verb, out, *more, **environment), PATIENCE)
        return max(ended, key=lambda one: abs(one[0] or 0))

    def whole(self, verb: Verb) -> tuple[float, Any]:
        """Seconds and result of a run that nothing disturbed, the shorter of two: the first one fills the cache."""
        if verb.name not in self._whole:
            taken = []
            for turn in range(2):
                with self.trial_folder(f"whole-{turn}") as folder:
                    begin = time.monotonic()
                    code, text = self.run(verb, folder / "out")
                    assert code == 0, text
                    taken.append((time.monotonic() - begin, verb.result(folder / "out")))
            assert taken[0][1] == taken[1][1], f"{verb.name} has two results: {differing(taken[0][1], taken[1][1])}"
            self._whole[verb.name] = (min(seconds for seconds, _ in taken), taken[0][1])
        return self._whole[verb.name]

    def trial_folder(self, name: str) -> Folder:
        """A fresh folder, deleted afterwards."""
        return Folder(self.folder / "trials" / name)


class Folder:
    """A folder that is there while the block runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _verbs(folder: Path) -> Iterator[Verb]:
    base, tuned, texts = folder / "base", folder / "tuned", folder / "texts"
    pool: Words = ("--tokens", "768", "--length", "16", "--rows-per-shard", "6", "--seed", "3")
    yield Verb(name="replay", words=("replay", base, *pool), result=pool_files)
    yield Verb(name="replay, 2 processes", words=("replay", base, *pool), result=pool_files, world=2, parts=("kill",))
    small: Words = ("--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--drift-rows", "4")
    small = (*small, "--held-out-rows", "4", "--drift-every", "2", "--checkpoint-every", "2")
    run: Words = ("tune", base, texts, "--config", folder / "fp32.toml", *small, "--seed", "3")
    for name, more, world, steps, parts in (
        ("tune", (), 1, 16, ("kill",)),
        ("tune --lora", ("--lora", "2"), 1, 16, ("kill",)),
        ("tune --budget", ("--budget", "0.05"), 1, 16, ("kill",)),
        ("tune, 2 processes", (), 2, 16, ("kill",)),
        ("tune, 4 steps", (), 1, 4, ("write", "place")),
        ("tune --lora, 4 steps", ("--lora", "2"), 1, 4, ("write",)),
    ):
        words = (*run, "--steps", str(steps), "--batch-size", str(2 // world), *more)
        yield Verb(name=name, words=words, result=tuned_run, world=world, resume=("--resume",), parts=parts)
    asked: Words = ("--text", f"mine={texts}", "--text", "self", "--task", f"ones={folder / 'task.jsonl'}")
    asked = (*asked, "--harmful", f"goals={folder / 'goals.txt'}", "--docs", "6", "--max-length", "32")
    asked = (*asked, "--prompts", "6", "--new-tokens", "4")
    yield Verb(name="audit", words=("audit", base, tuned, *asked), result=audit_report)
    little: Words = ("--budget", "0.5", "--minutes", "600", "--max-rank", "16", "--learning-rate", "1e-3")
    little = (*little, "--batch-size", "4", "--max-length", "32")
    yield Verb(name="plan", words=("plan", base, texts, *little), result=plan_document)


def pool_files(out: Path) -> Any:
    """Every byte of a pool."""
    return {path.name: sha256_file(path) for path in sorted(out.iterdir())}


def tuned_run(out: Path) -> Any:
    """The model's bytes, its readings, and the certificate."""
    model = {path.name: sha256_file(path) for path in sorted((out / "model").glob("*.safetensors"))}
    certificate = out / "certificate.json"
    return {
        "model": model,
        "readings": without_clock(read_rows(out / "runs.jsonl")),
        "certificate": without_clock(json.loads(certificate.read_text())) if certificate.is_file() else None,
        "files": sorted(path.name for path in out.iterdir()),
    }


def audit_report(out: Path) -> Any:
    """The report but for its settings, and the names of all files."""
    report = without_clock(json.loads((out / "report.json").read_text()))
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if "samples" not in path.parts)
    return {"report": {key: value for key, value in report.items() if key not in _SETTINGS}, "files": files}


def plan_document(out: Path) -> Any:
    """The pilot's runs and the run that was chosen."""
    content = json.loads((out / "plan.json").read_text())
    runs, chosen = content["pilot"]["runs"], content["plan"]
    return without_clock({"runs": runs, "chosen": chosen, "stop": content["pilot"]["stop"]})


def without_clock(value: Any) -> Any:
    """A JSON value but for what a clock, a machine or a commit decides."""
    if isinstance(value, dict):
        return {key: without_clock(inner) for key, inner in value.items() if key not in _CLOCK}
    return [without_clock(inner) for inner in value] if isinstance(value, list) else value


def differing(left: Any, right: Any, place: str = "") -> list[str]:
    """Where two JSON values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right})
        return [found for key in keys for found in differing(left.get(key), right.get(key), f"{place}.{key}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [found for number, (a, b) in pairs for found in differing(a, b, f"{place}[{number}]")]
    return [] if left == right else [f"{place}: {str(left)[:60]} | {str(right)[:60]}"]


def chance_of(*names: object) -> tuple[int, random.Random]:
    """The seed of a trial, by its names, and the generator of it."""
    seed = random.Random(" ".join(map(str, names))).getrandbits(32)
    return seed, random.Random(seed)


def rows_of(part: str) -> list[Row]:
    """All rows of a part so far."""
    file = ROWS / f"{part}.jsonl"
    return read_lines(file) if file.is_file() else []


def append(part: str, row: Row) -> None:
    """Append a trial's row."""
    text = json.dumps({**row, "commit": _commit()}, ensure_ascii=False)
    append_line(ROWS / f"{part}.jsonl", text.replace(f"{tempfile.gettempdir()}/", ""))


@cache
def _commit() -> str:
    return (commit() or "")[:7]


def last_line(text: str) -> str:
    """The last line of a command's stderr, for a row."""
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("keeptune: ")]
    return (said or lines or [""])[-1][:200]
