"""README and docs/ name only what exists, and the README stays short."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from pages import FILE, PAGES, ROOT, blocks, code, commands, links, prose
from typer.main import get_command

from raykd.cli.app import app
from raykd.spec.document import parse_yaml
from raykd.spec.search import build_sweep
from raykd.spec.suite_file import read_suite

# A file with one of these endings, or a folder; `raykd/NAME` without one is an architecture.
_PATH = re.compile(
    r"\b(?:tests|raykd|trainables|benchmarks|search_spaces|clusters)/(?:[\w./-]*\.(?:py|yaml)|[\w/]*/(?!\w))"
)
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_the_readme_is_short() -> None:
    """One screen a topic; all else is in docs/."""
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= 12_000 and text.count(b"\n") <= 200


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    gone = [target for target in links(page) if not (page.parent / target).exists()]
    assert not gone


@EACH_PAGE
def test_files_in_code_exist(page: Path) -> None:
    """`raykd/…`, `benchmarks/…` and so on are paths from the root; a test may be named by its file alone."""
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    made = {named[1] for block in blocks(page) if (named := FILE.match(block.text))}  # by the page itself
    tests |= {Path(path).name: "def " for path in made}
    gone = []
    for words in [*code(page), *commands(page)]:
        named = [path for path in _PATH.findall(words) if "NAME" not in path]
        gone += [path for path in named if not (ROOT / path).exists() and path not in made]
        for name, function in re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", words):
            if f"def {function}" not in tests.get(name, ""):
                gone.append(f"{name}::{function}")
    assert not gone


@EACH_PAGE
def test_make_targets_exist(page: Path) -> None:
    """Every `make TARGET` is in the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [
        re.search(r"\bmake ([a-z][\w-]*)$", words) for words in map(_command, [*code(page), *commands(page)])
    ]
    assert not {found[1] for found in named if found} - targets


def _command(line: str) -> str:
    """A command without its comment."""
    return line.partition(" #")[0].strip()


@EACH_PAGE
def test_commands_are_commands(page: Path) -> None:
    """Every `raykd VERB --option` names a verb and options that there are."""
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    wrong = []
    for line in [*code(page), *commands(page)]:
        words = shlex.split(line.replace("…", ""), comments=True)
        while words and (words[0] == "nohup" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words.pop(0)
        if words[:1] != ["raykd"] or len(words) < 2:
            continue
        command = verbs.get(words[1])
        if words[1] == "VERB" or (words[1].startswith("--") and command is None):
            continue
        if command is not None and hasattr(command, "commands"):
            command = command.commands.get(words[2]) if len(words) > 2 else command
        known = (
            {option for param in command.params for option in param.opts} | {"--help"} if command else set()
        )
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        if command is None or given - known:
            wrong.append(line)
    assert not wrong


@EACH_PAGE
def test_yaml_blocks_are_what_raykd_reads(page: Path) -> None:
    """All parse; those that are whole search spaces are built, so that every key and value is known."""
    for block in blocks(page, "yaml"):
        read = parse_yaml(block.text, page.name)
        assert isinstance(read, dict)
        if {"name", "method", "epochs", "samples"} <= read.keys():
            build_sweep(read)
        if {"name", "tasks"} <= read.keys():
            read_suite(read)


def test_environment_variables_in_the_documentation_are_read() -> None:
    source = "\n".join(
        path.read_text() for package in ("raykd", "trainables") for path in (ROOT / package).rglob("*.py")
    )
    named = {name for page in PAGES for name in re.findall(r"\bRAYKD_[A-Z_]+\b", page.read_text())}
    assert {"RAYKD_STORAGE", "RAYKD_CACHE"} <= named
    assert not [name for name in named if f'"{name}"' not in source]


def test_every_verb_is_in_the_readme_s_table() -> None:
    text = prose(ROOT / "README.md")
    for verb in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"^\| `{verb}\b", text, re.MULTILINE), verb


def test_pages_are_no_links_out_of_the_repository() -> None:
    """A page that points above the root works on one machine only."""
    for page in PAGES:
        for target in links(page):
            assert os.path.normpath(page.parent / target).startswith(str(ROOT)), target
