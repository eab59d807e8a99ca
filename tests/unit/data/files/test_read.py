"""Each kind of data on disk is read as it stands, or refused with its name; docs/data-formats.md says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.data.documents import load_documents
from keeptune.errors import SourceError
from tests.helpers.data_files import BAD_ROWS, PAGE, Member, lay_out, members, page


@pytest.mark.parametrize("member", list(members()), ids=lambda member: member.what)
def test_read_or_refused(member: Member, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = lay_out(member, tmp_path)
    if member.read is None:
        with pytest.raises(SourceError) as refused:
            load_documents(source)
        assert member.says in refused.value.what + refused.value.fix
        assert refused.value.fix
        return
    assert list(load_documents(source)["text"]) == member.read
    said = capsys.readouterr().err.replace(str(tmp_path), "FOLDER")
    assert " ".join(member.says.split()) in " ".join(said.split())


@pytest.mark.parametrize("member", BAD_ROWS, ids=lambda member: member.what)
def test_bad_rows_are_left_out_when_asked(member: Member, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = lay_out(member, tmp_path)
    assert list(load_documents(source, skip_bad_rows=True)["text"]) == ["fine", "more"]
    said = capsys.readouterr().err.replace(str(tmp_path), "FOLDER")
    assert f"bad rows left out of FOLDER/r.jsonl, 1 of 3: {member.says}" in said


def test_the_page_says_what_is_so() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run make data-formats"
