"""What another user of the machine can do while a sweep runs, and what is written of its secrets: nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import two_users
from two_users import A, B, Machine

pytestmark = [
    pytest.mark.ray(second=True),
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(two_users.missing()), reason=two_users.missing() or "-"),
]

SPEC = """\
name: small
method: moco
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
data: {name: digits, image_size: 16}
epochs: 1
samples: 1
lanes: 1
references: []
fixed: {queue_size: 256}
axes: {temperature: [0.1, 0.2]}
"""
SECRETS = {
    name: f"canary-of-{name.lower()}"
    for name in (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
        *("AZURE_CLIENT_SECRET", "AZURE_STORAGE_KEY", "GOOGLE_API_KEY", "GCS_TOKEN", "HF_TOKEN"),
        *("WANDB_API_KEY", "GITHUB_TOKEN", "RAY_REDIS_PASSWORD"),
    )
}
# The driver as it is, but it waits before it stops Ray, so that somebody can look around.
HELD = """
import sys, time
from pathlib import Path
import ray
from raykd.cli import main
home, stop = Path.home(), ray.shutdown
def held(*given, **named):
    if ray.is_initialized():
        (home / "held").touch()
        while not (home / "go").exists(): time.sleep(0.1)
    stop(*given, **named)
ray.shutdown = held
main(sys.argv[1:])
"""
# Another user, who knows what everybody can see: the ports, the command lines, where things are by default.
ATTACK = """
import json, os, socket, stat, sys, urllib.error, urllib.request
from pathlib import Path
victim, temporary, address, dashboard = sys.argv[1:5]
got = []
def reads(path):
    try: return path.read_bytes()
    except OSError: return b""
for path in (Path(victim, ".ray", "auth_token"), *Path("/proc").glob("[0-9]*/environ")):
    if path.name == "auth_token" and reads(path) or b"RAY_AUTH_TOKEN=" in reads(path):
        got.append(f"read {path}")
for folder, _, names in os.walk(temporary):
    for name in names:
        path = Path(folder, name)
        found = os.lstat(path)
        if found.st_uid == os.getuid(): continue
        if os.access(folder, os.W_OK) and not os.stat(folder).st_mode & stat.S_ISVTX:
            got.append(f"can replace {path}")
        if stat.S_ISSOCK(found.st_mode):
            try: socket.socket(socket.AF_UNIX).connect(str(path)); got.append(f"connected to {path}")
            except OSError: pass
body = json.dumps({"entrypoint": f"touch {victim}/ran"}).encode()
for header in ({}, {"Authorization": "Bearer guessed"}, {"X-Ray-Authorization": "Bearer guessed"}):
    for path in ("/api/jobs/", "/api/job_agent/jobs/"):
        asked = urllib.request.Request(f"http://{dashboard}{path}", body, header)
        asked.add_header("Content-Type", "application/json")
        try: urllib.request.urlopen(asked, timeout=10); got.append(f"the job API took {path} {header}")
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403, 404, 405): got.append(f"the job API answers {error.code}")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "guessed"}
import ray
from raykd.lanes import joining
from raykd.lanes.token import authentication
try: joining.look(address); got.append("raykd would join")
except ValueError as error: print("raykd:", error)
for mode in ("token", "disabled"):
    with authentication(mode):
        try: joining._check(address); got.append(f"Ray answers in mode {mode}")
        except joining._NoToken: pass
try: ray.init(address, log_to_driver=False); got.append("ray.init joined")
except Exception as error: print("ray.init:", type(error).__name__, str(error).splitlines()[0])
print("GOT", json.dumps(got))
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with two_users.two_users() as made:
        for name, text in (("small.yaml", SPEC), ("held.py", HELD), ("attack.py", ATTACK)):
            (made.folder / name).write_text(text)
        yield made


def sweep(machine: Machine) -> tuple[str, ...]:
    return ("run", f"{machine.folder}/small.yaml", "--storage", f"{machine.home(A)}/sweeps")


def found(machine: Machine, secrets: Mapping[str, str]) -> list[str]:
    """Where a secret is written: in a file of a user's, in Ray's folders, in a command line."""
    wrong = []
    texts = {name: value.encode() for name, value in secrets.items()}
    for folder, _, names in os.walk(machine.folder):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink() and path.name != "auth_token":
                data = path.read_bytes()
                wrong += [f"{name} in {path}" for name, value in texts.items() if value in data]
    for process in machine.processes():
        try:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        wrong += [f"{name} in {line[:200]!r}" for name, value in texts.items() if value in line]
    return wrong


def ray_of(machine: Machine) -> tuple[str, str, str]:
    """Address, dashboard and token of the Ray that runs there, alone, as root can see them."""
    (gcs,), (raylet, *_) = machine.processes("gcs_server"), machine.processes("raylet")
    address = next(w.partition("=")[2] for w in raylet.cmdline() if w.startswith("--gcs-address="))
    token = gcs.environ().get("RAY_AUTH_TOKEN", "")
    return address, "127.0.0.1:8265", token


def attacked(machine: Machine, address: str, dashboard: str) -> str:
    """What another user tried; it gets nowhere."""
    where = (machine.home(A), machine.temporary, address, dashboard)
    done = machine.run(B, sys.executable, machine.folder / "attack.py", *where)
    assert done.stdout.strip().endswith("GOT []"), done.stdout + done.stderr
    assert not (machine.home(A) / "ran").exists()
    return done.stdout


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.slow
def test_another_user_gets_nothing_of_a_local_sweep(machine: Machine) -> None:
    home, output = machine.home(A), machine.folder / "output"
    driver = machine.start(
        A, sys.executable, machine.folder / "held.py", *sweep(machine), output=output, **SECRETS
    )
    try:
        deadline = time.monotonic() + 240
        while not (home / "held").exists():
            assert driver.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        address, dashboard, token = ray_of(machine)
        assert len(token) == 64 and not (home / ".ray").exists()
        logs = [*machine.temporary.glob("rk*/ray/session_*/logs/runtime_env_agent.log")]
        assert logs and "PL_DISABLE_FORK" in logs[0].read_text(), "Tune's runtime environment is in there"
        assert found(machine, {**SECRETS, "token": token}) == []
        (own,) = machine.temporary.glob("rk*")
        assert mode(own) == 0o700 and mode(home / ".cache" / "raykd") == 0o700
        assert f"uid {A}'s" in attacked(machine, address, dashboard)
    finally:
        (home / "go").touch()
        driver.wait(120)
    assert driver.returncode == 0, output.read_text()
    assert not [*machine.temporary.glob("rk*")], "Ray's folder goes with it"
    assert found(machine, {**SECRETS, "token": token}) == []


@pytest.mark.slow
def test_another_user_gets_nothing_of_a_cluster_with_a_token(machine: Machine) -> None:
    """The user's own `ray start`, whose token Ray has left to the umask."""
    home = machine.home(A)
    ray = (sys.executable, "-m", "ray.scripts.scripts")
    assert machine.run(A, *ray, "get-auth-token", "--generate").returncode == 0
    file = home / ".ray" / "auth_token"
    assert mode(file) & 0o044, "Ray does this right by now: less to mend"
    started = machine.run(A, *ray, "start", "--head", "--num-cpus=1")
    assert started.returncode == 0, started.stdout + started.stderr
    done = machine.run(A, sys.executable, "-m", "raykd.cli", *sweep(machine), **SECRETS)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "joined the Ray cluster at" in said and "Traceback" not in said, said
    assert "other users could read Ray's token" in said and "finished at epoch 1" in said, said
    assert mode(file) == 0o600 and mode(file.parent) == 0o700
    token = file.read_text().strip()
    session = (machine.temporary / "ray" / "session_latest").resolve()
    assert "PL_DISABLE_FORK" in (session / "logs" / "runtime_env_agent.log").read_text()
    assert found(machine, {**SECRETS, "token": token}) == []
    address, dashboard, _ = ray_of(machine)
    assert f"uid {A}'s" in attacked(machine, address, dashboard)
    for asked in ("auto", address):
        doctor = machine.run(B, sys.executable, "-m", "raykd.cli", "doctor", "--address", asked)
        assert doctor.returncode == 2 and doctor.stderr.count("\n") == 1, doctor.stderr
        assert f"is uid {A}'s" in doctor.stderr
