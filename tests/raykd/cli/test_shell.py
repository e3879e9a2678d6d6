"""What a shell asks raykd: its version, and how a command goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import command

from raykd.process.version import version

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_is_said_by_both_programs() -> None:
    for program in (command(), [sys.executable, str(ROOT / "sweep.py")]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{version()}\n", "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("raykd re", {"resume", "report"}), ("raykd run --sa", {"--samples"}), ("raykd --v", {"--version"})],
)
def test_a_shell_completes_a_command(typed: str, offered: set[str]) -> None:
    # As the line that `--show-completion` prints asks; the program's name is that of the command that runs.
    code = "import sys; sys.argv[0] = 'raykd'; from raykd.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "_RAYKD_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and set(done.stdout.split()) == offered, done.stdout + done.stderr
