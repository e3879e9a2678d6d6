#!/usr/bin/env bash
# A sweep as a Slurm job: Ray on its nodes, the doctor, then the sweep. Change the lines marked CHANGE, then, with an
# environment active that every node sees, and in a folder that they share:
#
#   sbatch clusters/slurm.sh my_space.yaml --set samples=200   # results in ./sweeps, or where RAYKD_STORAGE says
#   raykd status NAME                                          # from any machine that sees them
#   scancel --signal=USR1 --batch JOB                          # end in good order now, and queue again
#   scancel JOB                                                # end; the same sbatch goes on with the sweep
#
# Arguments: SPEC, a file or a name, and any number of `--set path=value`; or `ablate STUDY`. The job may be started
# again and again: a sweep of this name that has begun is resumed. Two minutes before its time is over the job ends
# the sweep in good order and queues itself again. Slurm queues it again after a node failed or it was preempted.
#SBATCH --job-name=raykd
#SBATCH --output=raykd-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=2                # CHANGE: so many nodes
#SBATCH --ntasks-per-node=1      # one Ray on each
#SBATCH --cpus-per-task=8        # CHANGE: so many CPUs of each
##SBATCH --gpus-per-node=1       # CHANGE: with GPUs take one # away
#SBATCH --time=24:00:00          # CHANGE: at most what your partition allows
#SBATCH --signal=B:USR1@120      # B: to this script alone
#SBATCH --requeue
# shellcheck disable=SC2317 # functions that srun's shells and traps call
set -euo pipefail

if [ $# -eq 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "usage: sbatch clusters/slurm.sh [ablate] SPEC [--set path=value]..." >&2
  exit 2
fi

# --- Ray -------------------------------------------------------------------------------------------------------------

free_ports() { # COUNT: so many ports that are free on this node, which jobs may share
  python -c 'import socket, sys
held = [socket.create_server(("", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in held))' "$1"
}

start_node() { # OPTIONS of `ray start`: this node's part, until it is asked to end
  local asked='' node='' folder=${TMPDIR:-/tmp} mine scratch
  trap 'asked=yes; [ -z "$node" ] || kill -TERM "$node"' TERM
  # Paths of Ray's sockets have 107 letters at most: no folder with a longer name.
  if [ ${#folder} -gt 20 ] || [ ! -w "$folder" ]; then folder=/tmp; fi
  mine=$folder/rk.$SLURM_JOB_ID
  rm -rf "$mine".*                  # of a start of this job that was killed
  scratch=$(mktemp -d "$mine.XXXX") # of mode 0700
  if [ -z "$asked" ]; then
    # CPUs and GPUs as Slurm gave them: by itself Ray would count those of other jobs, too.
    ray start "$@" --temp-dir="$scratch/ray" --num-cpus="$CPUS" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block \
      --disable-usage-stats --dashboard-agent-listen-port="$(free_ports 1)" > "$scratch/said" 2>&1 &
    node=$!
    while kill -0 "$node" 2> /dev/null; do wait "$node"; done # a signal ends a wait, and not Ray
    [ -n "$asked" ] || tail -n 20 "$scratch/said" >&2
  fi
  rm -rf "$scratch"
}

on_nodes() { # OPTIONS of srun -- OPTIONS of `ray start`: Ray there, one a node
  local options=()
  while [ "$1" != -- ]; do options+=("$1") && shift; done
  srun --ntasks-per-node=1 --cpus-per-task="$CPUS" --cpu-bind=none --mem=0 --kill-on-bad-exit=0 "${options[@]}" \
    bash -c "$(declare -f free_ports start_node); start_node \"\$@\"" "$@" &
  steps+=($!)
}

end_ray() { # the processes of this job's steps, and no others; Slurm kills what has not ended in 40 s
  trap - EXIT
  [ -z "$(jobs -rp)" ] || scancel --signal=TERM "$SLURM_JOB_ID" || true
  for _ in $(seq 400); do
    [ -n "$(jobs -rp)" ] || break
    sleep 0.1
  done
}

wait_for_nodes() { # until every node of the job has joined
  python -c 'import sys, time, ray
wanted, deadline = int(sys.argv[2]), time.monotonic() + 300
ray.init(sys.argv[1], logging_level="error", log_to_driver=False)
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{alive} of {wanted} nodes joined Ray within 300 s")
    time.sleep(1)' "$address" "$SLURM_JOB_NUM_NODES"
}

# --- the sweep -------------------------------------------------------------------------------------------------------

name_of() { # the sweep's name, from the arguments of this script
  python -c 'import argparse
from raykd.spec.search import load_sweep
given = argparse.ArgumentParser()
given.add_argument("spec")
given.add_argument("--set", action="append", default=[])
found = given.parse_args()
print(load_sweep(found.spec, found.set).name)' "$@"
}

run() { # COMMAND: to its end, which a signal to this script brings about in good order; returns its exit code
  local code=0 again
  [ -z "$asked" ] || return 1
  "$@" &
  running=$!
  wait "$running" || code=$?
  while [ "$code" -gt 128 ] && kill -0 "$running" 2> /dev/null; do # a signal ended the wait, and not the command
    code=0
    wait "$running" || code=$?
  done
  if [ "$code" -gt 128 ]; then # or the command ended meanwhile
    again=0
    wait "$running" 2> /dev/null || again=$?
    [ "$again" -eq 127 ] || code=$again
  fi
  running=''
  return "$code"
}

sweep() { # the arguments of this script
  local name
  run wait_for_nodes || return
  if [ "$1" = ablate ]; then # begins a study, or goes on with it
    run raykd doctor --address "$address" --nodes "$SLURM_JOB_NUM_NODES" || return
    run raykd "$@" --address "$address"
    return
  fi
  run raykd doctor "$@" --address "$address" --nodes "$SLURM_JOB_NUM_NODES" || return
  name=$(name_of "$@") || return
  if raykd status "$name" > /dev/null 2>&1; then
    run raykd resume "$name" --address "$address"
  else
    run raykd run "$@" --address "$address"
  fi
}

ask() { # WHY: the running command to end; raykd then takes 25 s at most
  asked=${asked:-$1}
  [ -z "$running" ] || kill -TERM "$running" || true
}

asked='' running='' steps=() code=0
trap 'ask requeue' USR1
trap 'ask end' TERM
trap end_ray EXIT
unset RAY_ADDRESS RAY_AUTH_TOKEN_PATH # sbatch hands on what the user's shell has
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # else nodes whose head has ended wait 30 s for it
export CPUS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
# Who has this token can give the job's Ray work. It is in the environment of the job's processes, in no file.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
read -r port client dashboard <<< "$(free_ports 3)"
address=$ip:$port
echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST: Ray at $address"

on_nodes --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" -- --head --node-ip-address="$ip" --port="$port" \
  --ray-client-server-port="$client" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard"
until (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; do
  kill -0 "${steps[0]}" 2> /dev/null || { echo "Ray did not start on $SLURMD_NODENAME" >&2 && exit 1; }
  sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
[ $others -eq 0 ] || on_nodes --nodes=$others --ntasks=$others --exclude="$SLURMD_NODENAME" -- --address="$address"

sweep "$@" || code=$?
end_ray
if [ "$asked" = requeue ]; then
  echo "job $SLURM_JOB_ID is queued again"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
