"""Train on the nodes of a Ray cluster with Ray Train; a run whose worker dies goes on from its last checkpoint.

    python recipes/ray_train.py --model org/model --data chats.jsonl --out /shared/run --pool /shared/pool --workers 16
    python recipes/ray_train.py --model smollm2 --data verilog --out run --workers 2 --cpu      # on this machine

Install keeptune and `ray[train]` on every node. The folders must lie on a file system that all nodes share. The pool is
that of recipes/ray_cluster.sh; without one the workers write it together first.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from keeptune.runs.folder import workspace
from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings


def loop(given: dict[str, Any]) -> None:
    """What each worker runs: Ray has given it the variables of torchrun, and joined the processes."""
    if torch.distributed.get_backend() == "gloo":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    resume = workspace(Path(given["out"])).claimed
    torch.distributed.barrier()  # before the first of them claims the folder
    tune(TuneSettings(**given), resume=resume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--pool")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--replay-tokens", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cpu", action="store_true", help="of a cluster without GPUs")
    given = parser.parse_args()
    out = Path(given.out).absolute()
    settings = {"model": given.model, "data": given.data, "out": str(out / "keeptune"), "steps": given.steps}
    settings |= {"replay_tokens": given.replay_tokens, "checkpoint_every": max(1, given.steps // 10), "lambda_": 1.0}
    if given.pool:
        settings["replay"] = str(Path(given.pool).absolute())
    result = TorchTrainer(
        loop,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="gloo" if given.cpu else "nccl"),
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=not given.cpu),
        run_config=RunConfig(name="ray", storage_path=str(out), failure_config=FailureConfig(max_failures=5)),
    ).fit()
    if result.error:
        raise result.error


if __name__ == "__main__":
    main()
