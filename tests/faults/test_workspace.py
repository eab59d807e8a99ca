"""A kill while a step is computed or written leaves the steps before whole, and nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keeptune.workspace import Steps


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
    calls: list[int] = []

    def compute() -> str:
        calls.append(1)
        return "anew"

    assert Steps(tmp_path).once("first", compute) == "done"
    assert not (tmp_path / "second.json").exists()
    assert Steps(tmp_path).once("second", compute) == "anew"
    assert len(calls) == 1
