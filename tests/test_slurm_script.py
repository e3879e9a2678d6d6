"""`clusters/slurm.sh` without Slurm: what it asks of Slurm, Ray and raykd, by programs that note their calls.

`tests/cluster/test_slurm.py` runs it under a real Slurm.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "clusters" / "slurm.sh"
# srun's job step is its command, run here. `ray start` listens until it is asked to end, as the head does.
PROGRAMS = {
    "srun": """\
#!/bin/bash
echo "srun $*" >> "$LOG"; echo $$ >> "$LOG.steps"
while [ "$1" != bash ]; do shift; done
exec "$@"
""",
    "scancel": """\
#!/bin/bash
echo "scancel $*" >> "$LOG"; xargs -r kill -TERM < "$LOG.steps"
""",
    "scontrol": """\
#!/bin/bash
echo "scontrol $*" >> "$LOG"
""",
    "ray": """\
#!{python}
import os, re, socket, sys, time
said = " ".join(sys.argv[1:])
with open(os.environ["LOG"], "a") as log:
    log.write(f"ray {{said}} TOKEN={{os.environ['RAY_AUTH_TOKEN']}} MODE={{os.environ['RAY_AUTH_MODE']}}\\n")
if port := re.search(r"--head .*--port=(\\d+)", said):
    held = socket.create_server(("127.0.0.1", int(port[1])))
time.sleep(60)
""",
    "raykd": """\
#!/bin/bash
echo "raykd $*" >> "$LOG"
case $1 in
  doctor)
    wanted=$((2 * $(grep -c "^raykd doctor" "$LOG")))
    until [ "$(grep -c "^ray " "$LOG")" -ge $wanted ]; do sleep 0.05; done
    exit "${{DOCTOR:-0}}"
    ;;
  status) exit "${{STATUS:-2}}" ;;
esac
trap 'echo "ended in good order" >> "$LOG"; kill %1; exit 1' TERM
[ -n "$SHORT" ] || {{ sleep 60 & wait; }}
""",
    # No Ray to ask: where nodes are asked for, all are there. NAME spares a start of Python with torch.
    "python": """\
#!/bin/bash
case $2 in
  *get_node_ip_address*) echo 127.0.0.1 ;;
  *ray.init*) echo "all of $4 nodes joined $3" >> "$LOG" ;;
  *load_sweep*) if [ -n "$NAME" ]; then echo "$NAME"; else exec {python} "$@"; fi ;;
  *) exec {python} "$@" ;;
esac
""",
}


class Job:
    """The script with programs of its own around it."""

    def __init__(self, folder: Path) -> None:
        programs = folder / "bin"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            filled = text.format(python=sys.executable) if "{python}" in text or "{{" in text else text
            (programs / name).write_text(filled)
            (programs / name).chmod(0o755)
        self.log = folder / "log"
        self.log.with_name("log.steps").touch()
        self.log.touch()
        self.env = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "PYTHONPATH": str(SCRIPT.parents[1]),
            "LOG": str(self.log),
            "HOME": str(folder),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_PER_TASK": "4",
            "SLURM_GPUS_ON_NODE": "2",
            "RAY_ADDRESS": "of.another:1",
        }

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        words = ["bash", str(SCRIPT), *arguments]
        return subprocess.Popen(
            words, env={**self.env, **env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        job = self.start(*arguments, SHORT="yes", **env)
        said, _ = job.communicate(timeout=60)
        return job.returncode, said

    def lines(self, program: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{program} ")]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_each_node_has_a_ray_with_the_token_of_the_job_and_what_slurm_gave_it(
    job: Job, tmp_path: Path
) -> None:
    assert len(str(tmp_path)) > 20, "too long for sockets below it"
    code, said = job.run("quickstart", NAME="quickstart", TMPDIR=str(tmp_path))
    assert code == 0, said
    head, others = job.lines("srun")
    assert "--nodes=1 --ntasks=1 --nodelist=n1 " in head and "--nodes=2 --ntasks=2 --exclude=n1 " in others
    started = job.lines("ray")
    address = said.split("Ray at ")[1].split()[0]
    assert len(started) == 2 and f"--port={address.split(':')[1]}" in started[0]
    assert f"--address={address} " in started[1] and "--dashboard-host=127.0.0.1" in started[0]
    (token,) = {line.split("TOKEN=")[1] for line in started}
    assert token.endswith(" MODE=token") and len(token.split()[0]) == 64
    assert token.split()[0] not in said + "".join(job.lines("srun")), "it is in no command line"
    for line in started:
        assert "--num-cpus=4 --num-gpus=2 " in line and "--temp-dir=/tmp/rk.17." in line
    ports = [word for line in started for word in line.split() if "port=" in word]
    assert len(ports) == len({word.rpartition("=")[2] for word in ports}) == 5
    assert not list(Path("/tmp").glob("rk.17.*")), "its folders are gone"


def test_a_sweep_begins_once_and_is_resumed_by_its_own_name(job: Job) -> None:
    words = ("quickstart", "--set", "samples=3", "--set", "name=mine")
    for status, last, known in (("2", f"run {' '.join(words)}", ""), ("0", "resume mine", "mine")):
        code, said = job.run(*words, STATUS=status, NAME=known)
        assert code == 0, said
        doctor, asked, done = job.lines("raykd")[-3:]
        address = said.split("Ray at ")[1].split()[0]
        assert doctor == f"raykd doctor {' '.join(words)} --address {address} --nodes 3"
        assert asked == "raykd status mine" and done == f"raykd {last} --address {address}"
        assert f"all of 3 nodes joined {address}" in job.log.read_text()
    assert not job.lines("scontrol"), "what has ended by itself is not queued again"
    assert len({line.split("TOKEN=")[1] for line in job.lines("ray")}) == 2, "each start has its own"


def test_a_study_begins_or_goes_on_by_itself(job: Job) -> None:
    code, said = job.run("ablate", "retro_parts")
    assert code == 0, said
    assert [line.split()[1:3] for line in job.lines("raykd")] == [
        ["doctor", "--address"],
        ["ablate", "retro_parts"],
    ]


def test_a_cluster_that_is_not_well_trains_nothing(job: Job) -> None:
    code, said = job.run("quickstart", DOCTOR="1")
    assert code == 1, said
    assert [line.split()[1] for line in job.lines("raykd")] == ["doctor"] and not job.lines("scontrol")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_limit_s_signal_ends_the_sweep_in_good_order_and_queues_again(
    number: signal.Signals, job: Job
) -> None:
    """SIGTERM is the user's or Slurm's own wish: Slurm queues a preempted job again by itself."""
    running = job.start("quickstart", NAME="quickstart")
    job.until(lambda: any(line.startswith("raykd run") for line in job.lines("raykd")))
    running.send_signal(number)
    running.communicate(timeout=60)
    said = job.log.read_text().splitlines()
    order = [said.index("ended in good order"), said.index("scancel --signal=TERM 17")]
    if number == signal.SIGUSR1:
        order.append(said.index("scontrol requeue 17"))
    assert order == sorted(order), "first the sweep, then Ray, then the queue"
    assert bool(job.lines("scontrol")) == (number == signal.SIGUSR1)
    assert running.returncode == (0 if number == signal.SIGUSR1 else 1)


def test_outside_of_a_job_it_says_how_it_is_used(job: Job) -> None:
    del job.env["SLURM_JOB_ID"]
    assert job.run("quickstart") == (
        2,
        "usage: sbatch clusters/slurm.sh [ablate] SPEC [--set path=value]...\n",
    )


@pytest.mark.parametrize("script", ["slurm.sh", "job.sh"])
def test_shellcheck_finds_nothing(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck not found: apt-get install shellcheck")
    done = subprocess.run(["shellcheck", str(SCRIPT.with_name(script))], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert os.access(SCRIPT, os.X_OK) or script == "job.sh"
