"""Commands that are printed can be pasted; a spec may come from standard input."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from command import SMALL, command, raykd

from raykd.storage import commands
from raykd.storage.open_storage import open_storage, open_sweep

ODD = ["sweeps", "my sweeps #1", "a'b", "$HOME", "ü", "-x", "a;b"]


@pytest.mark.parametrize("storage", ODD)
def test_a_command_is_read_by_the_shell_as_it_was_meant(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(commands.STORAGE_VARIABLE, raising=False)
    words = shlex.split(commands.command("export", open_storage(storage).sweep("wide"), "--out", "a b"))
    where = [] if storage == "sweeps" else ["--storage", storage]
    assert words == ["raykd", "export", "wide", "--out", "a b", *where]


def test_the_storage_is_said_where_the_variable_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(commands.STORAGE_VARIABLE, "/elsewhere")
    assert commands.command("resume", open_sweep(Path("sweeps/wide"))) == "raykd resume wide --storage sweeps"
    monkeypatch.setenv(commands.STORAGE_VARIABLE, "sweeps")
    assert commands.command("resume", open_sweep(Path("sweeps/wide"))) == "raykd resume wide"


def test_a_spec_from_standard_input(tmp_path: Path) -> None:
    nameless = tmp_path / "nameless.yaml"
    nameless.write_text(SMALL.replace("name: small\n", ""))

    def dry_run(*more: str) -> subprocess.CompletedProcess[str]:
        with nameless.open() as spec:
            os.dup2(spec.fileno(), 0)
            return raykd("run", "-", "--dry-run", "--storage", tmp_path / "sweeps", *more)

    before = os.dup(0)
    try:
        refused, done = dry_run(), dry_run("--set", "name=s")
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert refused.returncode == 2 and refused.stderr.startswith("raykd: name: is missing"), refused.stderr
    assert done.returncode == 0 and "gamma" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_spec_from_a_pipe_of_the_shell(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SMALL)
    words = shlex.join(command("run", "--dry-run", "--storage", tmp_path))
    shell = f"{words} <(cat {tmp_path}/s.yaml)"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "gamma" in done.stdout, done.stderr
