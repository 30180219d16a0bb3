#!/bin/bash
# Trains on every node of a SLURM job, one rank for each GPU (or, without one, for each core).
# From the repository:  sbatch --nodes 2 docs/slurm.sh --config lenet5-modern
#SBATCH --job-name=lenet5
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=01:00:00
#SBATCH --output=slurm-%j.log

set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ranks=${SLURM_GPUS_ON_NODE:-$SLURM_CPUS_ON_NODE}

# One torchrun on each node; they meet at the first. The job's number keeps apart two jobs that do.
srun --ntasks-per-node=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "$ranks" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 10000))" \
    --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 3 \
    -m project.fit --trainer.strategy ddp --checkpoint_minutes 5 "$@"
