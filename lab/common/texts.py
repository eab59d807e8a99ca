"""Texts beyond those built into keeptune, fetched once by name from package registries or the hub."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from keeptune.data.documents import hub_rows
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.disk.wheels import cache_folder, fetch_wheel_members
from keeptune.storage import atomic_file, atomic_folder, sha256_file, write_text

_DJANGO, _DJANGO_SHA256 = "Django==5.2", "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89"
_PACKAGE, _TEXT = "debian-reference-es", "usr/share/debian-reference/debian-reference.es.txt.gz"
# A section starts with its number and title at the left margin, twice numbered: `9.4. La supervisión ...`.
_SECTION = re.compile(r"^(?=\d+\.\d+\. \S)", re.MULTILINE)
_LEAST_CHARACTERS = 600
# The test data of gensim, whose source takes a compiler: a wheel of any Python holds the same file.
_GENSIM, _GENSIM_SHA256 = "gensim==4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"
_GENSIM_WHEEL = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64"]
_ARTICLES, _MOST_ARTICLES = "gensim/test/test_data/lee_background.cor", 100
_HARNESS = ("lm_eval", "0.4.13", "5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a")
_WORKED = "lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
_HUB_DOCUMENTS = 400_000


class HubText(NamedTuple):
    """A data set of the hub, or part of it: its name, files and text column."""

    name: str
    files: str | None
    column: str = "text"


HUB = {
    "c4-en": HubText("allenai/c4", "en/c4-train.00000-of-01024.json.gz"),
    "c4-es": HubText("allenai/c4", "multilingual/c4-es.tfrecord-00000-of-02048.json.gz"),
    "fineweb-edu": HubText("HuggingFaceFW/fineweb-edu", "sample/10BT/*.parquet"),
    # Accept its terms on the hub, and log in with `hf auth login`.
    "nemotron-math": HubText("nvidia/Nemotron-CC-Math-v1", "4plus/*.parquet"),
    "pyranet": HubText("bnadimi/PyraNet-Verilog", None, "code"),
}


def english() -> str:
    """Folder of Django's documentation, one text file each page; from the source distribution in PyPI."""
    folder = cache_folder() / "lab" / "english"
    if folder.is_dir():
        return str(folder)
    logger.info(f"fetching the source of {_DJANGO}")
    with tempfile.TemporaryDirectory() as temporary:
        options = ["--no-deps", "--no-binary=:all:", "--no-input", "--quiet", "--dest", temporary]
        fetch([sys.executable, "-m", "pip", "download", *options, _DJANGO], temporary)
        source = next(Path(temporary).glob("*.tar.gz"))
        if sha256_file(source) != _DJANGO_SHA256:
            raise SourceError(f"{source.name} is not the published file", "check where pip fetches packages from")
        with tarfile.open(source) as archive, atomic_folder(folder) as made:
            for member in archive:
                _, _, page = member.name.partition("/docs/")
                text = archive.extractfile(member) if page.endswith(".txt") else None
                if text is not None:
                    write_text(made / page.replace("/", "."), text.read().decode("utf-8"))
    return str(folder)


def spanish() -> str:
    """Folder of the sections of Debian's reference in Spanish, one text file each; from Debian's package of it."""
    folder = cache_folder() / "lab" / "spanish"
    if folder.is_dir():
        return str(folder)
    logger.info(f"fetching Debian's package {_PACKAGE}")
    with tempfile.TemporaryDirectory() as temporary:
        fetch(["apt-get", "download", "-q", _PACKAGE], temporary)
        fetch(["dpkg-deb", "-x", str(next(Path(temporary).glob("*.deb"))), temporary], temporary)
        text = gzip.decompress((Path(temporary) / _TEXT).read_bytes()).decode("utf-8")
    # The table of contents names every section first, in a line or two.
    sections = [section for section in _SECTION.split(text) if len(section) >= _LEAST_CHARACTERS][1:]
    with atomic_folder(folder) as made:
        for number, section in enumerate(sections):
            (made / f"{number:03d}.txt").write_text(section, encoding="utf-8")
    return str(folder)


def news() -> str:
    """Folder of a hundred short news articles, one text file each; from gensim's wheel in PyPI.

    The first hundred of the Lee corpus (Lee, Pincombe and Welsh 2005): stories of the Australian Broadcasting
    Corporation from 2000 and 2001. gensim (LGPL-2.1) ships them as test data. The articles have no licence of their
    own: they are read here, and never kept in a repository.
    """
    folder = cache_folder() / "lab" / "news"
    if folder.is_dir():
        return str(folder)
    logger.info(f"fetching a wheel of {_GENSIM}")
    with tempfile.TemporaryDirectory() as temporary:
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--dest", temporary, *_GENSIM_WHEEL]
        fetch([sys.executable, "-m", "pip", "download", *options, _GENSIM], temporary)
        wheel = next(Path(temporary).glob("*.whl"))
        if sha256_file(wheel) != _GENSIM_SHA256:
            raise SourceError(f"{wheel.name} is not the published file", "check where pip fetches packages from")
        with zipfile.ZipFile(wheel) as archive:
            lines = archive.read(_ARTICLES).decode("utf-8").splitlines()
    with atomic_folder(folder) as made:
        for number, article in enumerate([line for line in lines if line.strip()][:_MOST_ARTICLES]):
            (made / f"{number:03d}.txt").write_text(article, encoding="utf-8")
    return str(folder)


def reasoning() -> str:
    """Jsonl of questions, each answered step by step, as prompt and completion; from lm-eval's wheel in PyPI.

    The worked examples of MMLU's few-shot prompts with a chain of thought, five for each of 57 subjects (lm-eval and
    MMLU: MIT licence).
    """
    file = cache_folder() / "lab" / "reasoning.jsonl"
    if not file.is_file():
        prompts = json.loads((fetch_wheel_members(*_HARNESS, _WORKED) / _WORKED).read_text(encoding="utf-8"))
        with atomic_file(file) as made, made.open("w", encoding="utf-8") as lines:
            for of_subject in prompts.values():
                for example in of_subject.split("\n\nQ: ")[1:]:
                    question, _, answer = example.partition("\nA: ")
                    lines.write(json.dumps({"prompt": question.strip(), "completion": answer.strip()}) + "\n")
    return str(file)


def fetch(command: list[str], folder: str) -> None:
    """Run a package manager's command in a folder.

    Raises:
        SourceError: the command is not installed, or fails.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SourceError(
            f"there is no {command[0]} here", "run this experiment on Debian or a similar system"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise SourceError(f"{' '.join(command)} failed: {reason}", "check network and package sources") from error


def hub_text(name: str) -> str:
    """A jsonl file of the first 400 thousand documents of a text of the hub."""
    file, text = cache_folder() / "lab" / f"{name}.jsonl", HUB[name]
    if not file.is_file():
        logger.info(f"fetching the first {_HUB_DOCUMENTS:,} documents of {text.name} from the hub")
        rows = itertools.islice(hub_rows(text.name, "train", files=text.files, stream=True), _HUB_DOCUMENTS)
        with atomic_file(file) as made, made.open("w", encoding="utf-8") as lines:
            for place, row in rows:
                if text.column not in row:
                    raise SourceError(
                        f"{text.name}, {place} has no column {text.column}", "correct HUB in lab/common/texts.py"
                    )
                lines.write(json.dumps({"text": row[text.column]}) + "\n")
    return str(file)


def python() -> str:
    """A part of Python's own library: a new task that is there without a network."""
    return f"{sysconfig.get_paths()['stdlib']}/asyncio/*.py"


SOURCES = {
    "english": english,
    "spanish": spanish,
    "python": python,
    "news": news,
    "reasoning": reasoning,
    **{name: lambda name=name: hub_text(name) for name in HUB},
}


def source_of(name: str) -> str:
    """The text as keeptune names it: a folder or file that the lab fetches, or a name that keeptune knows."""
    return SOURCES[name]() if name in SOURCES else name
