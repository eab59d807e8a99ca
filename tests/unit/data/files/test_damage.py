"""Damaged files: whatever bytes change, a file is read or refused in words; nothing crashes or hangs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from keeptune.data.documents import load_documents
from keeptune.errors import SourceError
from tests.helpers.data_files import members

INSERTED = (
    b'"',
    b"\n",
    b"{",
    b"[",
    b"]",
    b",",
    b"\\ud800",
    b"NaN",
    b"\0",
    b"1e999",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
)
FILES = [(name, content) for one in members() for name, content in one.files.items() if isinstance(content, bytes)]


def damaged(content: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.randint(1, 4)):
        start = dice.randint(0, len(content))
        end = min(len(content), start + dice.randint(0, 20))
        between = dice.choice(
            (b"", content[start:end] * 2, bytes(dice.choices(range(256), k=3)), dice.choice(INSERTED))
        )
        content = content[:start] + between + content[end:] if dice.random() < 0.9 else content[:start]
    return content


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    dice, read = random.Random(seed), 0
    for number in range(100):
        name, content = dice.choice(FILES)
        if dice.random() < 0.2:
            name = dice.choice(FILES)[0]  # a suffix that lies
        path = tmp_path / str(number) / Path(name).name
        path.parent.mkdir()
        path.write_bytes(damaged(content, dice))
        try:
            read += len(load_documents(str(path), skip_bad_rows=dice.random() < 0.5)) > 0
        except SourceError as refused:
            assert refused.fix, refused.what
    assert read, "some of the damage is none"
