"""What `--ray` refuses before anything is loaded. `make ray-tests` runs a real Ray."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.cli import run


@pytest.mark.parametrize(
    ("given", "world", "words"),
    [
        (["--ray", "0"], "1", "--ray is 0"),
        (["--ray", "-2"], "1", "--ray is -2"),
        (["--ray", "2", "--text", "notes.txt"], "1", "--ray is for sampling"),
        (["--ray", "2", "--shard"], "1", "each worker of Ray holds it whole"),
        (["--ray", "2"], "2", "one of several processes"),
    ],
)
def test_what_workers_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], world: str, words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    assert run(monkeypatch, "replay", "no-model", "--out", "pool", *given) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, "replay", model_folder, "--out", tmp_path / "pool", "--ray", "2") == 2
    assert 'pip install "keeptune[cluster]"' in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "pool").exists()
