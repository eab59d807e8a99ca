"""Steps that are done once: kept, done anew when an input changed or a file is damaged, never half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keeptune.workspace import Steps

ANSWER = {"numbers": [1, 2.5, None], "text": "“done” – 🌟"}


def counting(result: Any = ANSWER) -> tuple[Callable[[], Any], list[int]]:
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return result

    return compute, calls


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    compute, calls = counting()
    assert Steps(tmp_path, model="a").once("a few words", compute) == ANSWER
    assert Steps(tmp_path, model="a").once("a few words", compute) == ANSWER
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-few-words.json"]
    Steps(tmp_path, model="a").once("other words", compute)
    assert len(calls) == 2


def test_nothing_is_a_result_too(tmp_path: Path) -> None:
    compute, calls = counting(None)
    steps = Steps(tmp_path)
    assert steps.once("none", compute) is None
    assert steps.once("none", compute) is None
    assert len(calls) == 1


def test_changed_inputs_do_a_step_anew(tmp_path: Path) -> None:
    compute, calls = counting()
    steps = Steps(tmp_path, model="a")
    for bound in (steps, Steps(tmp_path, model="b"), steps.of(tokens=64), steps.of(tokens=32), steps.of(tokens=32)):
        assert bound.once("step", compute) == ANSWER
    assert len(calls) == 4
    assert Steps(tmp_path, tokens=32, model="a").once("step", compute) == ANSWER
    assert len(calls) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff\xfe\x00"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({key: value for key, value in content(file).items() if key != "key"})),
        lambda file: file.write_text(json.dumps({**content(file), "content": {"numbers": [1, 2.6, None]}})),
        lambda file: file.write_text(json.dumps({**content(file), "checksum": "0" * 64})),
        lambda file: (file.unlink(), file.mkdir(), file.rmdir()),
    ],
    ids=["cut off", "empty", "no text", "a list", "no key", "other content", "other checksum", "gone"],
)
def test_a_damaged_file_is_done_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    compute, calls = counting()
    steps = Steps(tmp_path, model="a")
    steps.once("step", compute)
    damage(tmp_path / "step.json")
    assert steps.once("step", compute) == ANSWER
    assert len(calls) == 2
    assert steps.once("step", compute) == ANSWER
    assert len(calls) == 2


def content(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path).once("step", fail)
    with pytest.raises(ValueError, match="JSON"):
        Steps(tmp_path).once("step", lambda: float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["computing", "writing", "before the rename"])
def test_a_kill_leaves_no_half_result(tmp_path: Path, moment: str) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from keeptune.workspace import Steps

        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        def die_half_way(path, text, **_):
            path.write_bytes(text.encode()[: len(text) // 2])
            die()

        folder, moment = Path(sys.argv[1]), sys.argv[2]
        Steps(folder).once("first", lambda: "done")
        if moment == "writing":
            Path.write_text = die_half_way
        elif moment == "before the rename":
            Path.replace = die
        Steps(folder).once("second", die if moment == "computing" else lambda: list(range(1000)))
    """)
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path), moment], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    compute, calls = counting("anew")
    assert Steps(tmp_path).once("first", compute) == "done"
    assert not (tmp_path / "second.json").exists()
    assert Steps(tmp_path).once("second", compute) == "anew"
    assert len(calls) == 1
