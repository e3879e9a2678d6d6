"""The cluster path as users type it, on hosts that are really apart, and what must hold when they die.

The tests go through one cluster's life, in order: `ray up`; a sweep whose trials span two hosts, with a lost
connection, a dead node and a Ctrl-C; a dead head; results on the laptop; `ray down`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import hosts
import pytest
from laptop import CHECKOUT, STALE_S, Laptop, furnish, until
from own_code import write_package, write_spec

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.storage.open_storage import open_sweep

SPACE = """\
name: spanning
method: retro
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
data: {name: digits, image_size: 16}
epochs: 12
samples: 9  # the command says 2
scheduler: {name: none}
workers: {count: 2, cpus: 1}  # all that a host offers
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
"""
SWEEP = hosts.SHARED / "sweeps" / "spanning"
SUBMIT = ("ray", "submit", "cluster.yaml", "sweep.py", "--")

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    if reason := hosts.missing():
        pytest.skip(reason)
    with hosts.hosts():
        for host in (1, 2, 3):
            furnish(host)
        yield Laptop()
    assert hosts.left() == []


def reports() -> int:
    if not (SWEEP / LEDGER).exists():
        return 0
    return sum(record["kind"] == "report" for record in Ledger.read(SWEEP))


def ended() -> bool:
    """Whether the last driver has said its last word."""
    last = Ledger.read(SWEEP)[-1]
    return (last["kind"], last.get("event")) == ("driver", "end")


def live_nodes(head: int) -> int:
    said = hosts.execute(head, "bash", "-lic", "ray status").stdout
    active = said.partition("Active:")[2].partition("Pending:")[0]
    return sum(map(int, re.findall(r"(\d+) local", active)))


def assert_complete(trials: int) -> None:
    history = History.of(Ledger.read(SWEEP))
    assert history.counts() == {"finished": trials, "stopped": 0, "failed": 0, "running": 0, "waiting": 0}
    for trial in history.trials.values():
        assert list(trial.reports) == list(range(1, 13)), "no epoch lost, none twice"


def test_ray_up_brings_this_checkout_to_every_node_and_keeps_strangers_out(laptop: Laptop) -> None:
    laptop.describe(head=1, workers=[2, 3])
    said = laptop.ray("up", "-y", "cluster.yaml")
    until(lambda: live_nodes(1) == 3, 180, lambda: said)
    where = 'cd / && python -c "import raykd.cli; print(raykd.cli.__file__)"'
    for host in (1, 2, 3):
        assert "/root/raykd-src/raykd/cli/__init__.py" in hosts.execute(host, "bash", "-lic", where).stdout
    tokens = [hosts.home(host) / ".ray" / "auth_token" for host in (1, 2, 3)]
    assert len({token.read_text() for token in tokens}) == 1
    assert {token.stat().st_mode & 0o777 for token in tokens} == {0o600}
    knock = ("ray", "status", "--address", f"{hosts.address(1)}:6379")
    stranger = hosts.execute(0, "env", "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=guessed", *knock)
    assert stranger.returncode != 0 and "Active:" not in stranger.stdout
    assert hosts.execute(0, "env", "RAY_AUTH_MODE=disabled", *knock).returncode != 0


def test_the_doctor_finds_the_cluster_well(laptop: Laptop) -> None:
    (laptop.folder / "search_spaces" / "spanning.yaml").write_text(SPACE)
    laptop.ray("rsync-up", "cluster.yaml")
    examine = "python -m raykd.cli doctor spanning --cluster cluster.yaml --json"
    said = hosts.execute(0, "bash", "-c", f"cd {CHECKOUT} && PYTHONPATH=. {examine}")
    found = {check["name"]: check for check in json.loads(said.stdout)}
    assert said.returncode == 0, said.stdout
    assert found["nodes"]["ok"] and found["storage"]["ok"] and found["checkout"]["ok"], said.stdout


def test_a_folder_with_own_code_comes_along_and_what_a_node_lacks_is_named(laptop: Laptop) -> None:
    folder = laptop.folder / "my_specs"
    write_package(folder)
    write_spec(folder, samples=1, workers={"count": 2, "cpus": 1})  # all that a host offers
    laptop.ray("rsync-up", "cluster.yaml")
    assert not (hosts.home(2) / "raykd-src" / "my_specs").exists(), "it is on the head alone"
    planned = laptop.ray(*SUBMIT[1:], "run", "my_specs/space.yaml", "--dry-run")
    assert "weight" in planned and "nothing was started" in planned
    laptop.ray(*SUBMIT[1:], "run", "my_specs/space.yaml", seconds=500)
    history = History.of(Ledger.read(hosts.SHARED / "sweeps" / "own"))
    assert history.counts()["finished"] == 1
    (packages,) = (hosts.home(1) / "raykd-env").glob("lib/python*/site-packages")
    shutil.copytree(folder / "own_lab", packages / "own_lab")  # what is installed comes first, and stays
    refused = laptop.terminal(*SUBMIT, "run", "my_specs/space.yaml", "--dry-run")
    assert refused.end(240) != 0
    said = " ".join(refused.said.split())
    for host in (2, 3):
        assert f"node {hosts.address(host)}: there is no such module on rk{host}" in said
    shutil.rmtree(packages / "own_lab")


def test_a_sweep_spans_hosts_and_outlives_its_connection_and_a_node(laptop: Laptop) -> None:
    submitted = laptop.terminal(*SUBMIT, "--space", "spanning", "--samples", "2")
    # Of two hosts at most one is the head: the other may die.
    first = submitted.wait_for(r"lane-0 is warm on (rk\d), (rk\d)", 240)
    until(lambda: reports() >= 3, 300, lambda: submitted.said)
    laptop.lose_connections()
    assert submitted.end(60) != 0
    before = reports()
    attached = laptop.terminal(*SUBMIT, "attach", "spanning")
    attached.wait_for(first[0], 60)  # its output from the start
    until(lambda: reports() > before, 120, lambda: attached.said)

    hosts.kill(int(first[2].removeprefix("rk")))
    others = ", ".join(sorted({"rk1", "rk2", "rk3"} - {first[2]}))
    attached.wait_for(rf"lane-\d is warm on {others}", 240)
    before = reports()
    until(lambda: reports() > before, 240, lambda: attached.said)

    attached.type("\x03")  # Ctrl-C
    assert attached.end(120) == 0
    assert "raykd resume spanning" in attached.said
    assert ended(), "it stopped in good order"
    hosts.start(int(first[2].removeprefix("rk")))


def test_a_new_head_resumes_after_the_old_one_died(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_LOCK_STALE", str(STALE_S))
    resumed = laptop.terminal(*SUBMIT, "resume", "spanning")
    before = reports()
    until(lambda: reports() > before, 240, lambda: resumed.said)
    hosts.kill(1)
    assert resumed.end(120) != 0, "the connection went with the head"
    laptop.describe(head=2, workers=[3])
    said = laptop.ray("up", "-y", "cluster.yaml")
    until(lambda: live_nodes(2) == 2, 180, lambda: said)
    until(lambda: open_sweep(SWEEP).driver() is None, 90, lambda: "its last heartbeat still counts")
    standing = laptop.ray("submit", "cluster.yaml", "sweep.py", "--", "status", "spanning", "--json")
    assert '"state": "interrupted"' in standing
    # In a tmux of the head's the command is back at once, and nobody looks on.
    laptop.ray("submit", "--tmux", "cluster.yaml", "sweep.py", "--", "resume", "spanning")
    until(ended, 400, lambda: str(Ledger.read(SWEEP)[-3:]))
    assert_complete(trials=2)


@pytest.mark.slow
def test_a_node_that_is_cut_off_costs_an_epoch_and_comes_back(laptop: Laptop) -> None:
    before = reports()
    extended = laptop.terminal(*SUBMIT, "resume", "spanning", "--extend", "1")
    until(lambda: reports() > before, 300, lambda: extended.said)
    hosts.link(3, "down")  # nothing is said to anybody: only Ray's health check can notice
    extended.wait_for(r"lane-0 (retires: its node is gone|was lost)", 240)
    hosts.link(3, "up")
    assert extended.end(500) == 0
    assert_complete(trials=3)


def test_results_come_back_and_the_cluster_goes(laptop: Laptop) -> None:
    laptop.ray("rsync-down", "cluster.yaml", "/srv/sweeps/spanning", "sweeps/")
    best = f"cd {CHECKOUT} && PYTHONPATH=. python -m raykd.cli best spanning --json"
    said = hosts.execute(0, "bash", "-c", best)
    assert json.loads(said.stdout)["trial"] in History.of(Ledger.read(SWEEP)).trials, said.stderr
    laptop.ray("down", "-y", "cluster.yaml")
    until(lambda: not hosts.processes(2, "raylet"), 120, lambda: "the head's raylet")


@pytest.mark.slow
def test_the_other_nodes_go_when_they_have_missed_their_head_for_a_minute(laptop: Laptop) -> None:
    until(lambda: not hosts.processes(3, "raylet"), 120, lambda: "the worker node's raylet")
