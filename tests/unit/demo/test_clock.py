"""The minutes of a demo that was stopped: added up, and told if they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.demo.run import Clock
from keeptune.errors import SourceError


def test_minutes_of_a_stage_add_up_over_interrupted_runs(tmp_path: Path) -> None:
    (tmp_path / "minutes.json").write_text('{"model": 2.5}')
    Clock(tmp_path).mark("model")
    assert 2.5 < Clock(tmp_path).minutes["model"] < 3.0


@pytest.mark.parametrize(
    ("content", "field"), [("{", "not JSON"), ("[]", "the whole"), ('{"a": "1"}', "a"), ('{"a": null}', "a")]
)
def test_damaged_minutes_name_their_file_and_field(tmp_path: Path, content: str, field: str) -> None:
    (tmp_path / "minutes.json").write_text(content)
    with pytest.raises(SourceError, match=rf"minutes\.json is damaged: .*{field}"):
        Clock(tmp_path)
