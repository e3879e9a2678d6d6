"""Tasks of suites on small networks and digits, as tests run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_trials import tiny, workspace

from trainables.downstream.outcome import Outcome
from trainables.downstream.run import RUNNERS
from trainables.downstream.subject import open_subject
from trainables.networks.backbones import Backbone
from trainables.spec.parse import build
from trainables.spec.suite import TASKS, SuiteTask
from trainables.spec.trial import TrialSpec

DIGITS = tiny("supervised")
MNIST = {"name": "mnist_5k"}
VIEWS = {"recipe": "digits", "strength": 0.5}
SHORT = {"epochs": 2, "optim": {"batch_size": 64, "schedule": "cosine"}, "views": VIEWS}


def task_of(kind: str, **fields: Any) -> SuiteTask:
    short = {} if kind == "frozen" else SHORT
    return build(TASKS[kind], {"task": kind, **short, **fields})


def network(trial: TrialSpec = DIGITS) -> Backbone:
    """The trial's student before its training."""
    return open_subject(trial, "start", None, Path())


def outcome(
    root: Path, kind: str, seed: int = 0, of: Backbone | None = None, trial: TrialSpec = DIGITS, **fields: Any
) -> Outcome:
    """What a task says about a network, by default about the trial's student before its training."""
    task = task_of(kind, **fields)
    subject = of if of is not None else network(trial)
    return RUNNERS[kind](task, subject, trial, seed, workspace(root, "task"))
