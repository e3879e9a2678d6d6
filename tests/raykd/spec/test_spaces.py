"""Every search space that comes with raykd: it says what it is, works, and its samples can be trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.description import description_of
from raykd.spec.search import build_sweep, load_sweep
from raykd.spec.shipped import spaces
from raykd.spec.validate import validate
from tests.helpers.flat import unflatten
from trainables.data.data_sets import published_sizes
from trainables.methods import methods
from trainables.training.resolve import resolve

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]
SPACES = sorted(spaces())


@pytest.mark.parametrize("name", SPACES)
def test_it_says_what_it_is(name: str) -> None:
    said = description_of(spaces()[name])
    assert len(said.about or "") > 20
    assert said.command is None or said.command.startswith(f"raykd run {name}")


def test_every_method_has_one() -> None:
    assert set(methods()) <= set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_it_works(name: str) -> None:
    spec = load_sweep(name)
    assert spec.name == name.rpartition("/")[2]
    if spec.teacher is not None and "checkpoint" in spec.teacher:
        # The file is the user's; everything else about the teacher can be looked at.
        training = {"method": "moco", "epochs": 1}
        raw = {**spec.model_dump(mode="json"), "teacher": {"arch": spec.teacher["arch"], "train": training}}
        spec = build_sweep(raw)
    with published_sizes():
        assert validate(spec) == []


@pytest.mark.parametrize("name", SPACES)
def test_what_it_samples_resolves(name: str) -> None:
    spec = load_sweep(name, ["sampler=random", "samples=20"])
    proposer = Proposer(spec)
    seen = []
    while (proposal := proposer.propose()) is not None:
        assert isinstance(proposal, Proposal)
        assert resolve(unflatten(proposal.config)).signature() == proposal.trial
        seen.append(proposal.trial)
    assert len(set(seen)) == 20 * len(spec.seeds)


def test_the_quickstart_searches_what_the_issue_names() -> None:
    spec = load_sweep("quickstart")
    assert {"adapter", "gamma", "temperature", "queue_size"} <= set(spec.axes)
    assert (spec.samples, spec.epochs, spec.scheduler.grace) == (20, 16, 4)
    assert spec.baseline is not None and spec.data.get("name") == "digits"


def test_they_are_found_in_a_checkout_that_lost_the_link(tmp_path: Path) -> None:
    """Some ways of copying leave links out; in the package there is one to the folder beside it."""
    shutil.copytree(ROOT / "raykd", tmp_path / "raykd", ignore=shutil.ignore_patterns("search_spaces"))
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    code = "from raykd.spec.shipped import SPACES, spaces; print(SPACES, 'quickstart' in spaces())"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, cwd=tmp_path, check=True)
    assert done.stdout == f"{(tmp_path / 'search_spaces').resolve()} True\n"
