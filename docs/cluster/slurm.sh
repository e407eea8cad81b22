#!/bin/bash
#SBATCH --job-name=vae
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --requeue

# One worker on each node; the folder of the run lies where all nodes see it.
export RUN=${RUN:-$HOME/runs/a}
export HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed 's/.*/"&:2222"/' | paste -sd ,)

# --kill-on-bad-exit: a worker that is lost ends the others, so that the job can be requeued.
srun --kill-on-bad-exit=1 bash -ec '
export TF_CONFIG="{\"cluster\": {\"worker\": [$HOSTS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
if [ -e "$RUN/run.json" ]; then
  exec tfp-vae train --resume "$RUN" --strategy multiworker
fi
exec tfp-vae train cvae-mnist-50d --batch-size 800 --out "$RUN" --strategy multiworker
'
