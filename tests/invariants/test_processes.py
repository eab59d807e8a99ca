"""Two processes: who goes first, what both agree on, and that a head in shards gives the gradient of the whole."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from keeptune.models.modeling import head_of, hidden_states
from keeptune.objective import fused_next_token_ce
from keeptune.replay.ranks import together
from keeptune.train.host.distributed import all_agree
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
    with together() as ranks:
        if rank == 0:
            time.sleep(3)
            (folder / "done").touch()
        assert ranks.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
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
