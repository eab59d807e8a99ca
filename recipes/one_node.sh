#!/bin/bash
# One node with several GPUs: all of them write the replay text, then all of them train.
#
#     MODEL=org/model DATA=chats.jsonl bash recipes/one_node.sh              # 8 GPUs, the base fits on each
#     SHARDED=1 MODEL=org/model DATA=chats.jsonl bash recipes/one_node.sh    # the base fits on no single GPU
#     MODEL=smollm2 DATA=verilog PROCESSES=2 ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 TUNE="--steps 4" \
#         bash recipes/one_node.sh                                           # two processes on a CPU
#
# What it will take: keeptune tune MODEL DATA --out run --estimate 8 --tflops 400 --shard --checkpoint-every 0
# A stopped pool goes on with the same command, also with another number of processes. So does training with accelerate's
# FSDP2 (recipes/fsdp2.yaml), add --resume; training with --shard keeps no checkpoints.
set -euo pipefail

MODEL=${MODEL:-org/model}
DATA=${DATA:-data.jsonl}
OUT=${OUT:-run}
PROCESSES=${PROCESSES:-8}
TOKENS=${TOKENS:-1000000}
POOL=${POOL:---rows-per-shard 128}
TUNE=${TUNE:---steps 1000}
SHARD=${SHARDED:+--shard}
NO_CHECKPOINTS=${SHARDED:+--checkpoint-every 0}
PYTHON=${PYTHON:-python}

launch() { "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$PROCESSES" -m "$@"; }

launch keeptune replay "$MODEL" --out "$OUT-pool" --tokens "$TOKENS" $POOL $SHARD
launch keeptune tune "$MODEL" "$DATA" --out "$OUT" --replay "$OUT-pool" --lambda 1 $TUNE $SHARD $NO_CHECKPOINTS
