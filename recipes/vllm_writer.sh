#!/bin/bash
# vLLM writes the pool in an environment of its own, one engine a GPU; training starts when the pool is finished.
#
#     MODEL=org/model DATA=chats.jsonl bash recipes/vllm_writer.sh
#
# A base that fits no single GPU: PROCESSES=1 and WRITER="--tensor-parallel 8".
set -euo pipefail

MODEL=${MODEL:-org/model}
DATA=${DATA:-data.jsonl}
OUT=${OUT:-run}
PROCESSES=${PROCESSES:-8}
TOKENS=${TOKENS:-1000000}
WRITER=${WRITER:---rows-per-shard 256}

if [ ! -x vllm-env/bin/python ]; then
    python -m venv vllm-env
    vllm-env/bin/pip install vllm
fi

launch() { torchrun --standalone --nproc_per_node "$PROCESSES" -m "$@"; }

launch keeptune replay "$MODEL" --out "$OUT-pool" --tokens "$TOKENS" --engine vllm --vllm-python vllm-env/bin/python $WRITER
launch keeptune tune "$MODEL" "$DATA" --out "$OUT" --replay "$OUT-pool" --lambda 1 --steps 1000
