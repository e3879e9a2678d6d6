"""`raykd` as a user types it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
scheduler: {name: asha, grace: 1, factor: 2}
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
  adapter: [linear, mlp]
"""


def raykd(*arguments: str | Path, timeout: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
        check=False,
    )


def start(*arguments: str | Path, output: Path) -> subprocess.Popen[Any]:
    """Start it, its output going to a file."""
    with output.open("ab") as out:
        return subprocess.Popen(command(*arguments), stdout=out, stderr=subprocess.STDOUT)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "raykd.cli", *map(str, arguments)]
