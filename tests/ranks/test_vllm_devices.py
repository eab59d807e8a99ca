"""Each process of a launch starts vLLM on its own GPU, outside the group of the processes."""

from __future__ import annotations

import pytest

from keeptune.replay.engines.vllm import _environment


@pytest.mark.parametrize(
    ("given", "device"), [("", "3"), ("0,1,2,3", "3"), ("4,5,6,7", "7"), ("GPU-a,GPU-b,GPU-c,GPU-d", "GPU-d")]
)
def test_one_engine_a_gpu(monkeypatch: pytest.MonkeyPatch, given: str, device: str) -> None:
    for name, value in {"RANK": "7", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    found = _environment()
    assert found["CUDA_VISIBLE_DEVICES"] == device
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"} & found.keys()


def test_one_process_leaves_all_gpus_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert _environment()["CUDA_VISIBLE_DEVICES"] == "2,3"
