"""What the pages of the documentation hold: blocks, links, words in `code`; and how to follow a page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: `console`, `yaml`, `python` and so on, and what it holds."""

    language: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order, or those of one language."""
    found = [Block(*groups) for groups in _BLOCK.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Targets of a page's links to files of this repository, without the #part."""
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
    return [target for target in targets if target and not re.match(r"\w+:", target)]


def code(page: Path) -> list[str]:
    """Every `code` in a page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> list[str]:
    """Every command of the page's console blocks, after `$ `; a backslash joins lines."""
    found = []
    for block in blocks(page, "console"):
        lines = iter(block.text.splitlines())
        for line in lines:
            if line.startswith("$ "):
                command = line[2:]
                while command.endswith("\\"):
                    command = command[:-1] + next(lines).strip()
                found.append(command)
    return found


def follow(page: Path, folder: Path, **variables: str) -> dict[str, str]:
    """Do in a folder what a page says, with these environment variables: command -> what it printed.

    A block whose first line is `# PATH` is a file. A line of a console block after `$ ` is a command; it must
    succeed. If the page shows its output, the first words of the shown lines must be in the real output.
    """
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "COLUMNS": "110", **variables}
    printed = {}
    for language, text in blocks(page):
        if language in ("python", "yaml") and (named := FILE.match(text)):
            (folder / named[1]).write_text(text)
        for part in text.split("\n$ ") if language == "console" else ():
            line, _, shown = part.removeprefix("$ ").partition("\n")
            done = subprocess.run(
                shlex.split(line), capture_output=True, text=True, cwd=folder, env=environment, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed[line] = done.stdout
            missing = beginnings(shown) - beginnings(done.stdout)
            assert not missing, f"{line} does not print {missing}:\n{done.stdout}"
    return printed


def beginnings(output: str) -> set[str]:
    """The first word of each line if it has only letters: what is the same every time."""
    return set(re.findall(r"^([a-z][a-z_]+)\b", output, re.MULTILINE))
