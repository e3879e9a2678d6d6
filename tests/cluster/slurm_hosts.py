"""Slurm on the hosts of `hosts.py`: its controller on host 3, and hosts 1 and 2 as nodes with one CPU each.

The daemons are Slurm's own, as Debian has them. Each host has a munged with the cluster's key. Without root
or Slurm there is none: `missing` says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import hosts

NODES, CONTROLLER = (1, 2), 3
SLURM = hosts.SHARED / "slurm"  # /srv/slurm on the hosts
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
CONF = """\
ClusterName=raykd
SlurmctldHost=rk{controller}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: a job that was queued again waits for so long, by default two minutes
AuthInfo=socket=/tmp/munge.socket,cred_expire=5
StateSaveLocation=/tmp/slurmctld
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
SlurmctldLogFile=/tmp/slurmctld.log
SlurmdLogFile=/tmp/slurmd.log
# Neither cgroups nor accounting: the hosts share this machine's kernel.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why this machine cannot run such a Slurm, or nothing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if absent := [tool for tool in TOOLS if shutil.which(tool, path=path) is None]:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return hosts.missing()


def start() -> None:
    """Start the daemons on hosts that are up. They end with their hosts."""
    SLURM.mkdir()
    key = SLURM / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    lines = [f"NodeName=rk{host} NodeAddr={hosts.address(host)} CPUs=1 RealMemory=4000" for host in NODES]
    names = ",".join(f"rk{host}" for host in NODES)
    about = {"controller": CONTROLLER, "address": hosts.address(CONTROLLER)}
    (SLURM / "slurm.conf").write_text(CONF.format(**about, nodes="\n".join(lines), names=names))
    (SLURM / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # else slurmd looks which one there is
    munge = "cp /srv/slurm/munge.key /tmp; munged --key-file=/tmp/munge.key --socket=/tmp/munge.socket"
    munge += " --pid-file=/tmp/munge.pid --log-file=/tmp/munge.log --seed-file=/tmp/munge.seed --force"
    for host in (CONTROLLER, *NODES):
        daemon = "slurmctld" if host == CONTROLLER else f"slurmd -N rk{host}"
        done = shell(host, f"mkdir -p /tmp/slurmctld /tmp/slurmd && chmod 755 /tmp && {munge} && {daemon}")
        assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60
    while len(idle()) < len(NODES):
        assert time.monotonic() < deadline, shell(CONTROLLER, "sinfo; tail /tmp/slurmctld.log").stdout
        time.sleep(0.2)


def shell(host: int, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line on a host as a user of Slurm, in the folder that all see."""
    settings = "export SLURM_CONF=/srv/slurm/slurm.conf RAYKD_STORAGE=/srv/sweeps; cd /srv; "
    return hosts.execute(host, "bash", "-c", settings + line)


def idle() -> list[str]:
    """The nodes that have nothing to do."""
    return shell(CONTROLLER, "sinfo --noheader --Node --states=idle --format=%N").stdout.split()


def job(number: str) -> dict[str, str]:
    """What Slurm says of a job: `JobState`, `Restarts` and others."""
    said = shell(CONTROLLER, f"scontrol --oneliner show job {number}").stdout
    return dict(field.partition("=")[::2] for field in said.split())
