"""`raykd doctor --cluster cluster.yaml`, from a laptop: Ray's launcher runs the doctor on the head.

The file is checked here. Then `ray exec` runs `raykd doctor --address auto --json` on the head, and its
answer is shown as if it came from here. If there is none, the launcher's output says why.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raykd.doctor.check import Check
from raykd.doctor.cluster_file import expected_nodes, load_cluster, on_the_head
from raykd.doctor.node import source_hash

# (pattern in the output of the launcher or the head, problem, what to do). The first that is found counts.
_FAILURES = (
    (r"Head node of cluster \(.*?\) not found", "the cluster is not up", "`ray up {file}`"),
    (
        r"Permission denied \(publickey[^\n]*|Load key [^\n]*",
        "the head refuses this key",
        "`auth.ssh_user` and `auth.ssh_private_key` in {file}: try `ssh -i KEY USER@HEAD true`",
    ),
    (
        r"ssh: (?:connect to host|Could not resolve hostname) [^\n]*|Connection (?:timed out|closed)[^\n]*",
        "the head cannot be reached by ssh",
        "`provider.head_ip` in {file}; is the machine on, and port 22 open to this one?",
    ),
    (
        r"raykd: (?:command )?not found|No module named '?raykd[^\n]*",
        "the head has no raykd",
        "`ray up {file}`, and look at what its `setup_commands` say",
    ),
    (
        r"no cluster answers[^\n]*",
        "the head is there, but Ray does not run on it",
        "`ray up {file}`; on the head, /tmp/ray/session_latest/logs says why it ended",
    ),
    (
        r"No such option: --address[^\n]*",
        "the head has an older raykd",
        "`ray up {file}` brings it to this checkout",
    ),
)


def checks(
    file: Path, arguments: Sequence[str], spec: str | None = None, limit_s: float = 600.0
) -> Iterator[Check]:
    """Every check of the cluster of `file`, made on its head. `arguments` are options of the doctor there.

    Raises `UserError` if the file is not one that Ray takes.
    """
    config = load_cluster(file)
    yield Check("cluster file", True, f"{file}: Ray takes it, provider {config['provider']['type']}")
    words = ["raykd", "doctor", *([on_the_head(spec, config, Path.cwd())] if spec else [])]
    words += ["--address", "auto", "--json", "--nodes", ",".join(expected_nodes(config)), *arguments]
    # A path on the head may begin with ~, which the shell there has to expand.
    command = " ".join(w if re.fullmatch(r"~/[\w./-]+", w) else shlex.quote(w) for w in words)
    said = _exec(file, command, limit_s)
    answer = parse(said)
    if answer is None:
        yield explain(file, said)
        return
    yield from answer
    yield _same_source(file, answer)


def parse(said: str) -> list[Check] | None:
    """The doctor's JSON among what `ray exec` prints; None if it is not there."""
    found = re.search(r"^\[\s*$.*?^\]\s*$", said.replace("\r", ""), re.MULTILINE | re.DOTALL)
    if found is None:
        return None
    try:
        rows: list[dict[str, Any]] = json.loads(found.group())
        return [Check(**row) for row in rows]
    except (ValueError, TypeError):
        return None


def explain(file: Path, said: str) -> Check:
    """Why the head gave no answer, and what to do about it."""
    for pattern, problem, mend in _FAILURES:
        found = re.search(pattern, said)
        if found:
            return Check("head", False, f"{problem}: {found.group().strip()}", mend.format(file=file))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = " / ".join(lines[-3:]) or "nothing was said"
    mend = f"`ray exec {file} 'raykd doctor --address auto'` shows all"
    return Check("head", False, f"no answer: {last}", mend)


def _same_source(file: Path, answer: Sequence[Check]) -> Check:
    """Does the cluster run the same source as this checkout?"""
    mine = source_hash()
    if any(check.name == "versions" and f"({mine})" in check.said for check in answer):
        return Check("checkout", True, f"the cluster runs this raykd ({mine})")
    mend = f"`ray up {file}` brings this checkout to every node"
    return Check("checkout", None, f"the cluster runs another raykd than this one ({mine})", mend)


def _exec(file: Path, command: str, limit_s: float) -> str:
    """What `ray exec` prints, also if it takes longer than `limit_s` seconds."""
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "exec", str(file), command]
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(
            ray,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        heard = error.stdout or b""
        text = heard.decode(errors="replace") if isinstance(heard, bytes) else heard
        return f"{text}\nno answer within {limit_s:g} s"
    return done.stdout
