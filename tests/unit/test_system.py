"""Free memory is the kernel's figure or what the tightest limit on the process leaves, whichever is less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from keeptune import system
from keeptune.system import default_device, free_bytes

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB to give and no limits."""
    monkeypatch.setattr(system, "_ROOT", tmp_path)
    put(tmp_path / "proc/meminfo", f"MemTotal: 16000000 kB\nMemAvailable: {8 * GIB // 1024} kB\nHugePages_Total: 0\n")
    put(tmp_path / "proc/self/cgroup", "4:memory:/\n1:cpu:/\n0::/\n")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit_v2(folder: Path, most: str, used: int, cache: int) -> None:
    put(folder / "memory.max", f"{most}\n")
    put(folder / "memory.current", f"{used}\n")
    put(folder / "memory.stat", f"anon 1\ninactive_file {cache}\n")


def test_without_limits_it_is_what_the_kernel_can_give(root: Path) -> None:
    assert free_bytes("cpu") == 8 * GIB
    limit_v2(root / "sys/fs/cgroup", "max", 3 * GIB, 0)
    assert free_bytes(torch.device("cpu")) == 8 * GIB


def test_a_kernel_without_control_groups_has_no_limits(root: Path) -> None:
    (root / "proc/self/cgroup").unlink()
    assert free_bytes("cpu") == 8 * GIB


def test_a_limit_anywhere_along_the_groups_path_counts(root: Path) -> None:
    put(root / "proc/self/cgroup", "0::/job/step\n")
    limit_v2(root / "sys/fs/cgroup/job", str(4 * GIB), 3 * GIB, GIB // 2)
    limit_v2(root / "sys/fs/cgroup/job/step", "max", 3 * GIB, 0)
    assert free_bytes("cpu") == GIB + GIB // 2
    limit_v2(root / "sys/fs/cgroup/job/step", str(2 * GIB), 3 * GIB, 0)
    assert free_bytes("cpu") == 0


def test_limits_of_the_first_version_and_paths_of_another_namespace(root: Path) -> None:
    put(root / "proc/self/cgroup", "7:cpu,cpuacct:/\n4:memory:/docker/0123\n0::/\n")
    folder = root / "sys/fs/cgroup/memory"
    put(folder / "memory.limit_in_bytes", f"{2 * GIB}\n")
    put(folder / "memory.usage_in_bytes", f"{GIB}\n")
    put(folder / "memory.stat", f"inactive_file 5\ntotal_inactive_file {GIB // 4}\n")
    assert free_bytes("cpu") == GIB + GIB // 4
    put(folder / "memory.limit_in_bytes", "9223372036854771712\n")
    assert free_bytes("cpu") == 8 * GIB


def test_where_the_system_has_no_proc_the_physical_memory_stands_in(root: Path) -> None:
    (root / "proc/meminfo").unlink()
    assert free_bytes("cpu") > 0


def test_on_this_machine() -> None:
    before = free_bytes("cpu")
    assert 2**20 < before < 2**50
    if torch.cuda.is_available():
        assert 0 < free_bytes("cuda") <= torch.cuda.mem_get_info()[1]


def test_a_build_for_gpus_on_a_machine_without_one_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert default_device() == torch.device("cuda")
