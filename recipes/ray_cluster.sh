#!/bin/bash
# Many nodes with Ray, whose machines may vanish: workers write the replay text, then one node trains. The folder of the
# pool must lie on a file system that all nodes share, by one path; keeptune must be installed on all of them.
#
#     ray start --head                                        # on the first node, then on the others:
#     ray start --address HEAD:6379
#     MODEL=org/model DATA=chats.jsonl WORKERS=32 bash recipes/ray_cluster.sh      # on any of them
#
# A worker that dies is replaced, and its shard is written by another one. vLLM on each worker: WRITER="--engine vllm
# --vllm-python /shared/vllm/bin/python --tensor-parallel 2". Training on several nodes: recipes/ray_train.py.
set -euo pipefail

MODEL=${MODEL:-org/model}
DATA=${DATA:-data.jsonl}
OUT=${OUT:-run}
WORKERS=${WORKERS:-8}
TOKENS=${TOKENS:-1000000}
WRITER=${WRITER:---rows-per-shard 64}

keeptune replay "$MODEL" --out "$OUT-pool" --tokens "$TOKENS" --ray "$WORKERS" $WRITER
torchrun --standalone --nproc_per_node gpu -m keeptune tune "$MODEL" "$DATA" --out "$OUT" --replay "$OUT-pool" --lambda 1 --steps 1000
