"""Bad input: one line of what is wrong, one of what to do, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign.bad_files import DATA, MODELS
from tests.campaign.bench import PATIENCE, Bench, Row, Words
from tests.helpers.ranks import KEEPTUNE, end, launch

PART = "input"
_TUNE = """--lambda -1|--lambda nan|--steps 0|--steps -3|--batch-size 0|--max-length 1|--replay-length 1|--held-out 1.5
--held-out -0.1|--lora 0|--learning-rate 0|--learning-rate -1|--learning-rate nan|--budget 0|--budget nan|--seed -1
--objective nosuch|--teacher nosuch|--opening nosuch|--drift-every -1|--accumulate 0|--checkpoint-every -1
--replay nowhere|--drift-text nowhere.txt|--laws nowhere.json|--chat-template nowhere.jinja|--config nowhere.toml
--stop-if-forecast nonsense|--document-start <nosuch>|--save-dtype int3|--lamda 3|--load-in-4bit|--steps many
--push-to-hub a/b/c|--replay-tokens -5|--drift-rows 0|--held-out-rows 0"""
_AUDIT = """--docs 0|--windows 0|--max-length 1|--only nosuch|--skip nosuch|--fail-above kl|--fail-above kl=much
--fail-above perplexity=3|--fail-above kl=nan|--fail-above kl=-1|--fail-above nosuch:kl=1|--text a=nowhere
--text a=pydoc --text a=self|--task t=nowhere.jsonl|--harmful bad=nowhere.csv|--lm-eval nosuch|--recovery nosuch
--junit a.xml|--report-to nosuch|--suite nosuch|--items 0|--new-tokens 0|--seed x|--stages --fail-above kl=1"""
_REPLAY = """--tokens 0|--length 1|--temperature 0|--temperature nan|--opening nosuch|--engine nosuch|--prompts nosuch
--predictions topk --top-k 0|--predictions topk --top-k 9999|--chat-template x.jinja|--tensor-parallel 0
--rows-per-shard 0|--text nowhere.txt|--document-start <nosuch>|--tokens x"""
_PLAN = "--budget 0|--budget -1|--budget nan|--minutes 0|--max-rank 1|--learning-rate 0|--hours 0|--batch-size 0"
_OTHER = """compare nowhere.json|compare nowhere.json nowhere2.json|laws fit nowhere.jsonl|laws fit EMPTY
laws fit EMPTY --bootstraps 5|laws predict nowhere.json --P 1 --N 1|laws predict EMPTY --P 1 --N 1|laws plot EMPTY
laws plot EMPTY --out a.exe|replay BASE|tune BASE|audit BASE|audit BASE TUNED TUNED|plan BASE|repair BASE
repair BASE TUNED --budget 0|repair BASE nowhere|nosuchverb|laws nosuch|demo --model nowhere --out d|compare EMPTY EMPTY
replay BASE --show nowhere|replay BASE --show 3 --estimate -1 --out p|tune BASE TEXTS --out o --estimate -1"""


def subjects(bench: Bench) -> Iterator[str]:
    """Groups of inputs."""
    yield from _cases(bench)


def trials(bench: Bench, subject: str) -> int:
    """Each input once."""
    return len(_cases(bench)[subject])


def trial(bench: Bench, subject: str, number: int) -> Row:
    """One command, in an empty folder."""
    label, words = _cases(bench)[subject][number]
    with bench.trial_folder("input") as folder:
        environment = bench.environment(folder / "home")
        ((code, said),) = end(launch(1, *KEEPTUNE, *words(folder), **environment), PATIENCE)
        left = [path.name for path in folder.iterdir() if path.name not in ("home", "given")]
    lines = [line for line in said.splitlines() if line.strip()]
    what = [line for line in lines if line.startswith("keeptune: ")]
    fix = [line for line in lines if line.startswith("  → ")]
    # What no flag can be is refused by the command line's own library, in a box.
    boxed = bool(re.search(r"╭─ (Error|Parameter)|Unknown (option|command)|Invalid value|requires an argument", said))
    clear = (len(what) == 1 and len(fix) == 1) or (boxed and not what)
    problem = (
        f"exit code {code}" if code != 2 else
        "a traceback" if "Traceback" in said else
        f"{len(what)} messages" if not clear else
        f"left {left}" if left else ""
    )  # fmt: skip
    row: Row = {
        "subject": subject,
        "trial": number,
        "input": label,
        "passed": not problem,
        "outcome": problem or "clear",
    }
    return {**row, "said": ("  ".join([*what, *fix]) or " ".join(lines))[-300:]}


_CASES: dict[str, list[tuple[str, Callable[[Path], Words]]]] = {}


def _cases(bench: Bench) -> dict[str, list[tuple[str, Callable[[Path], Words]]]]:
    if not _CASES:
        _CASES.update(_make_cases(bench))
    return _CASES


def _make_cases(bench: Bench) -> dict[str, list[tuple[str, Callable[[Path], Words]]]]:
    base, tuned, texts = (bench.folder / name for name in ("base", "tuned", "texts"))
    plain: dict[str, Words] = {
        "tune": ("tune", base, texts, "--out", "out"),
        "audit": ("audit", base, tuned, "--out", "out"),
        "replay": ("replay", base, "--out", "out"),
        "plan": ("plan", base, texts, "--out", "out"),
    }
    cases: dict[str, list[tuple[str, Callable[[Path], Words]]]] = {}
    for verb, table in (("tune", _TUNE), ("audit", _AUDIT), ("replay", _REPLAY), ("plan", _PLAN)):
        flags = [given.split() for given in re.split(r"[|\n]", table)]
        needed = [[] if verb != "plan" or "--budget" in given else ["--budget", "1"] for given in flags]
        pairs = zip(flags, needed, strict=True)
        cases[f"{verb}: settings"] = [
            (" ".join(given), _placed((*plain[verb], *given, *more))) for given, more in pairs
        ]
    names = {"BASE": base, "TUNED": tuned, "TEXTS": texts}
    others = [[names.get(word, word) for word in given.split()] for given in re.split(r"[|\n]", _OTHER)]
    cases["verbs"] = [(" ".join(map(str, words)).replace(str(bench.folder), ""), _placed(words)) for words in others]
    for verb in ("tune", "audit", "replay"):
        place = 2 if verb == "audit" else 1
        cases[f"{verb}: models"] = [(name, _given(plain[verb], place, make, base)) for name, make in MODELS.items()]
    for verb in ("tune", "plan"):
        cases[f"{verb}: data"] = [(name, _given(plain[verb], 2, make, base)) for name, make in DATA.items()]
    return cases


def _placed(words: Words | list[str | Path]) -> Callable[[Path], Words]:
    def build(folder: Path) -> Words:
        given = folder / "given"
        given.mkdir()
        (given / "empty.json").touch()
        placed = {"EMPTY": given / "empty.json", "out": folder / "out"}
        return tuple(placed.get(str(word), word) for word in words)

    return build


def _given(words: Words, place: int, make: Callable[[Path, Path], Path | str], base: Path) -> Callable[[Path], Words]:
    def build(folder: Path) -> Words:
        shutil.copytree(base, folder / "given" / "model")
        bad = make(folder / "given", folder / "given" / "model")
        more = ("--budget", "0.5", "--minutes", "1") if words[0] == "plan" else ()
        out = {"out": folder / "out"}
        return (*(bad if at == place else out.get(str(word), word) for at, word in enumerate(words)), *more)

    return build
