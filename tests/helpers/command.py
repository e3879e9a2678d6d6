"""`raykd` as a user types it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from raykd.cli import main
from raykd.process.environment import setting

SMALL = """\
# A sweep that takes seconds once its lanes are warm.
name: small
method: retro
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
data: {name: digits, image_size: 16}
baseline: {method: moco, preset: digits}
epochs: 4
samples: 4
lanes: 1
scheduler: {name: asha, grace: 1, factor: 2}
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
  adapter: [linear, mlp]
"""


ALONE = (
    "run",
    "ablate",
    "resume",
    "evaluate",
    "doctor",
)  # these start Ray, or look at the process that they are in
AT_ONCE = {"--dry-run", "--plan"}


def raykd(
    *arguments: str | Path, timeout: float = 240, here: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end: what starts Ray in a process of its own, all else in this one, which has torch.

    `here` is for what would start Ray and is refused, or has nothing to do.
    """
    words = [str(argument) for argument in arguments]
    here |= bool(AT_ONCE.intersection(words)) or (words[0] == "evaluate" and "--on" not in words)
    if words[0] in ALONE and not here:
        return subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **env},
            check=False,
        )
    with (
        setting(env),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
        pytest.raises(SystemExit) as ended,
    ):
        main(words)
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(words, ended.value.code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, output: Path) -> subprocess.Popen[Any]:
    """Start it, its output going to a file."""
    with output.open("ab") as out:
        return subprocess.Popen(command(*arguments), stdout=out, stderr=subprocess.STDOUT)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "raykd.cli", *map(str, arguments)]
