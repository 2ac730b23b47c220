#!/usr/bin/env bash
# TensorFlow's servers have no authentication: whoever reaches a node on its port can read and write your files there.
# Use nodes whose network nobody else reaches, or allocate them whole, as here, and let a firewall close the ports.
# One worker on each node: sbatch examples/multi-machine/slurm.sh mlp --dataset mnist --run-dir /shared/runs/mlp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
export ATTEMPTS=10 PORT=$((20000 + SLURM_JOB_ID % 20000))
NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ' ')
export NODES

worker='
hosts=$(for node in $NODES; do printf "\"%s:%s\"," "$node" "$PORT"; done)
export TF_CONFIG="{\"cluster\": {\"worker\": [${hosts%,}]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
exec keras-vae train --strategy multiworker "$@"
'
# The supervisor: --kill-on-bad-exit ends all workers when one dies, and the loop starts all of them again.
for attempt in $(seq "$ATTEMPTS"); do
    code=0
    srun --kill-on-bad-exit=1 bash -c "$worker" worker "$@" || code=$?
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then exit "$code"; fi # 2: bad input, or finished before
    echo "attempt $attempt ended with $code" >&2
done
exit 1
