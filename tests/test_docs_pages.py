"""Pages of docs/ that are scripts: every file that they show is written, every command is run, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, blocks

FILE_NAME = re.compile(r"# ([\w.-]+)\n")


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_first_student(tmp_path: Path) -> None:
    """From a checkpoint and images to an exported student that timm opens, as the page says."""
    outputs = follow(ROOT / "docs/first_student.md", tmp_path)
    assert (tmp_path / "student/student/model.safetensors").exists()
    assert "features of one image: (1, " in outputs["python use.py"]
    assert "moco_v2" in outputs["raykd teacher inspect teacher.pth.tar"]
    assert (tmp_path / "sweeps/mine/report.html").exists()


def follow(page: Path, folder: Path) -> dict[str, str]:
    """Do what a page says in an empty folder; command -> what it printed.

    A block whose first line is `# NAME` is a file. A line of a console block after `$ ` is a command. Where the
    page shows what it prints, each word of letters at the start of a shown line must be there too.
    """
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "COLUMNS": "110"}
    outputs = {}
    for language, text in blocks(page):
        if language in ("python", "yaml") and (named := FILE_NAME.match(text)):
            (folder / named[1]).write_text(text)
        for part in text.split("\n$ ") if language == "console" else ():
            line, _, shown = part.removeprefix("$ ").partition("\n")
            done = subprocess.run(
                shlex.split(line), capture_output=True, text=True, cwd=folder, env=environment, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            outputs[line] = done.stdout
            missing = beginnings(shown) - beginnings(done.stdout)
            assert not missing, f"{line} no longer prints {missing}:\n{done.stdout}"
    return outputs


def beginnings(output: str) -> set[str]:
    """The first word of each line, where it is one of letters: what of an output does not change with numbers."""
    return set(re.findall(r"^([a-z][a-z_]+)\b", output, re.MULTILINE))
