"""Texts of the lab beyond those built into keeptune, fetched once by name from package registries."""

from __future__ import annotations

import gzip
import re
import subprocess
import tempfile
from pathlib import Path

from keeptune.progress import say
from keeptune.sources import cache_folder
from keeptune.storage import atomic_folder

_PACKAGE, _TEXT = "debian-reference-es", "usr/share/debian-reference/debian-reference.es.txt.gz"
# A section starts with its number and title at the left margin, twice numbered: `9.4. La supervisión ...`.
_SECTION = re.compile(r"^(?=\d+\.\d+\. \S)", re.MULTILINE)
_LEAST_CHARACTERS = 600


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


SOURCES = {"spanish": spanish}


def source_of(name: str) -> str:
    """What keeptune calls the text: a folder of the lab's own, or a name that keeptune knows."""
    return SOURCES[name]() if name in SOURCES else name
