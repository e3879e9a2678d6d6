"""`clusters/slurm.sh` under a real Slurm: the limit ends the sweep in good order, and the job resumes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
import slurm_hosts
from laptop import ROOT, until
from slurm_hosts import CONTROLLER, NODES, job, shell

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger

SPACE = """\
name: by_slurm
method: retro
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
data: {name: digits, image_size: 16}
epochs: 6
samples: 9  # the command says 1
references: []
scheduler: {name: none}
workers: {count: 2, cpus: 1}  # all that a node offers: a trial spans both
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
"""
SWEEP = hosts.SHARED / "sweeps" / "by_slurm"
SCRIPT = ROOT / "clusters" / "slurm.sh"

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    if reason := slurm_hosts.missing():
        pytest.skip(reason)
    with hosts.hosts():
        slurm_hosts.start()
        (hosts.SHARED / "space.yaml").write_text(SPACE)
        yield
    assert hosts.left() == []


def submit(*arguments: str) -> str:
    """Submit the script as it is, but for the CPUs of these small nodes. The job's number."""
    words = " ".join(("sbatch", "--parsable", "--cpus-per-task=1", str(SCRIPT), *arguments))
    done = shell(CONTROLLER, words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output(number: str) -> str:
    file = hosts.SHARED / f"raykd-{number}.out"
    return file.read_text() if file.exists() else ""


def records() -> list[dict[str, object]]:
    return Ledger.read(SWEEP) if (SWEEP / LEDGER).exists() else []


def reports() -> int:
    return sum(record["kind"] == "report" for record in records())


def folders(host: int) -> list[Path]:
    """Ray's folders on a node."""
    return list(Path(hosts.FOLDER, str(host), "tmp").glob("rk.*"))


def left_on(host: int) -> list[object]:
    """What a job has left on a node: processes of Ray, and its folder."""
    return [*(hosts.processes(host, name) for name in ("raylet", "gcs_server")), *folders(host)]


def test_a_job_ends_in_good_order_queues_itself_again_and_resumes(cluster: None) -> None:
    number = submit("space.yaml", "--set", "samples=1")
    until(lambda: reports() >= 2, 400, lambda: output(number))
    said = output(number)
    assert "ok    nodes: 2" in said and "bad " not in said, "the doctor has found both nodes, and all is well"
    (address,) = re.findall(r"Ray at (\S+)", said)
    found = shell(CONTROLLER, f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN=guessed ray status --address {address}")
    assert found.returncode != 0 and "Active:" not in found.stdout, "it asks for its token"
    assert {oct(folder.stat().st_mode & 0o777) for host in NODES for folder in folders(host)} == {"0o700"}

    assert shell(CONTROLLER, f"scancel --signal=USR1 --batch {number}").returncode == 0  # as at its limit
    until(lambda: job(number)["Restarts"] == "1", 120, lambda: output(number))
    last = records()[-1]
    assert (last["kind"], last["event"]) == ("driver", "end"), "it said its last word"
    before = reports()

    until(lambda: job(number)["JobState"] == "COMPLETED", 400, lambda: output(number))
    assert re.findall(r"start (\d)", output(number)) == ["1", "2"]
    history = History.of(Ledger.read(SWEEP))
    assert before < reports() and len(history.drivers) == 4, "the second start has resumed the sweep"
    (trial,) = history.trials.values()
    assert trial.status == "finished" and trial.attempts == 2
    assert list(trial.reports) == list(range(1, 7)), "no epoch lost, none twice"
    assert [left_on(host) for host in NODES] == [[[], []], [[], []]]
