"""The lab's texts: those of the hub, from one on the loopback interface; and what is said where none can be had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common import texts
from common.grid import LAB
from keeptune.errors import SourceError
from tests.helpers.hub import Hub, hub, online

__all__ = ["hub"]


def fetched(name: str, hub: Hub, folder: Path) -> subprocess.CompletedProcess[str]:
    script = f"from common.texts import source_of; print(open(source_of({name!r}), encoding='utf-8').read(), end='')"
    environment = online(hub, folder) | {"PYTHONPATH": str(LAB), "KEEPTUNE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_a_text_of_the_hub_is_its_column_of_text(hub: Hub, tmp_path: Path) -> None:
    folder = hub.root / "datasets/bnadimi/PyraNet-Verilog"
    folder.mkdir(parents=True)
    rows = [{"code": "module ä; endmodule", "description": "d"}, {"code": "wire b;", "description": "e"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = fetched("pyranet", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"text": row["code"]} for row in rows]


def test_a_text_without_its_column_leaves_no_file(hub: Hub, tmp_path: Path) -> None:
    folder = hub.root / "datasets/bnadimi/PyraNet-Verilog"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"verilog": "wire b;"}\n')
    done = fetched("pyranet", hub, tmp_path)
    assert done.returncode == 1
    assert "bnadimi/PyraNet-Verilog, row 1 has no column code" in done.stderr
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_a_package_manager_that_fails_or_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no apt-nowhere here"):
        texts.fetch(["apt-nowhere"], str(tmp_path))
    with pytest.raises(SourceError, match=r"failed: .*No such file"):
        texts.fetch(["ls", "nothing"], str(tmp_path))
