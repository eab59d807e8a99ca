"""Several processes: who goes first, what all agree on, and what FSDP may and may not be."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from keeptune.errors import ConfigError
from keeptune.models.modeling import head_of, hidden_states
from keeptune.objective import fused_next_token_ce
from keeptune.train.distributed import all_agree, check_sharding, main_process_first, teachers_head
from tests.helpers.models import make_model

INPUT_BT = torch.arange(24).reshape(4, 6)


def loss(model: nn.Module, input_BT: torch.Tensor) -> torch.Tensor:
    hidden_ND = hidden_states(model, input_BT)[:, :-1].flatten(0, 1)
    target_N = input_BT[:, 1:].flatten()
    return fused_next_token_ce(hidden_ND, head_of(model), target_N) / len(target_N)


def in_two_processes(rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=2))
    rank_zero_takes_longer_than_a_collective_may(rank, folder)
    a_head_in_shards_gives_the_gradient_of_the_whole(rank)
    dist.destroy_process_group()


def rank_zero_takes_longer_than_a_collective_may(rank: int, folder: Path) -> None:
    with main_process_first():
        if rank == 0:
            time.sleep(3)
            (folder / "done").touch()
        assert (folder / "done").exists()
    assert all_agree(True, torch.device("cpu"))
    assert not all_agree(rank == 0, torch.device("cpu"))


def a_head_in_shards_gives_the_gradient_of_the_whole(rank: int) -> None:
    whole, model = make_model(tie=False), make_model(tie=False)
    mesh = init_device_mesh("cpu", (2,))
    for module in (model.lm_head, model.model):  # the head's own forward, which would gather it, never runs
        fully_shard(module, mesh=mesh)
    assert isinstance(model.lm_head.weight, DTensor)
    assert torch.equal(head_of(model).detached().weight_VD, whole.lm_head.weight)
    loss(whole, INPUT_BT).backward()
    loss(model, INPUT_BT[2 * rank : 2 * rank + 2]).backward()
    for name, parameter in model.named_parameters():
        expected = whole.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.full_tensor(), expected, rtol=0, atol=1e-6)


def test_two_processes(tmp_path: Path) -> None:
    mp.spawn(in_two_processes, args=(tmp_path,), nprocs=2)


def test_one_process_waits_for_nobody(tmp_path: Path) -> None:
    with main_process_first():
        pass
    assert all_agree(True, torch.device("cpu"))
    assert not all_agree(False, torch.device("cpu"))


def fake_trainer(**plugin: object) -> SimpleNamespace:
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(**plugin))
    args = SimpleNamespace(fsdp=None, device=torch.device("cpu"))
    return SimpleNamespace(is_fsdp_enabled=True, accelerator=SimpleNamespace(state=state), args=args)


def test_fsdp_that_cannot_work_is_refused() -> None:
    check_sharding(fake_trainer(fsdp_version=2, cpu_ram_efficient_loading=False))
    with pytest.raises(ConfigError, match="without the base's weights") as caught:
        check_sharding(fake_trainer(fsdp_version=2, cpu_ram_efficient_loading=True))
    assert caught.value.fix == "set fsdp_cpu_ram_efficient_loading to false"
    with pytest.raises(ConfigError, match="FSDP1"):
        check_sharding(fake_trainer(fsdp_version=1, cpu_ram_efficient_loading=False))


def test_the_teachers_head_is_copied_where_it_would_change() -> None:
    model = make_model()
    host = SimpleNamespace(sharded=True, dtype=torch.float32, device=torch.device("cpu"))
    sharded = teachers_head(model, host).weight_VD
    host.sharded = False
    tuned = teachers_head(model, host).weight_VD
    model.requires_grad_(False)
    assert teachers_head(model, host).weight_VD is model.lm_head.weight
    for copy in (sharded, tuned):
        assert torch.equal(copy, model.lm_head.weight)
        assert copy.data_ptr() != model.lm_head.weight.data_ptr()
