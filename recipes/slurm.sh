#!/bin/bash
# Several nodes under SLURM, the base spread over all GPUs. The folder of the run must lie on a file system that all nodes
# share.
#
#     sbatch --nodes 4 recipes/slurm.sh
#
#SBATCH --job-name=keeptune
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=keeptune-%j.log
set -euo pipefail

MODEL=${MODEL:-org/model}
DATA=${DATA:-data.jsonl}
OUT=${OUT:-run}
TOKENS=${TOKENS:-2000000}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

launch() {
    srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc_per_node 8 \
        --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$HEAD:29500" -m "$@"
}

# After a requeue the pool goes on from the shards that are there.
launch keeptune replay "$MODEL" --out "$OUT-pool" --tokens "$TOKENS" --rows-per-shard 64 --shard
launch keeptune tune "$MODEL" "$DATA" --out "$OUT" --replay "$OUT-pool" --lambda 1 --steps 1000 --batch-size 1 \
    --shard --checkpoint-every 0 --overwrite
