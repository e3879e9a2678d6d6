"""Arms are paired: one seed gives all of them the same initial student, split, order and views, bit by bit.

What differs is what is ablated, and nothing else; another seed gives other bits.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from studies import BASE

from raykd.ablation.study import build_study
from trainables.core.isolation import isolated
from trainables.methods.base import Batch, Losses
from trainables.spec.trial import TrialSpec
from trainables.training.loop import prepare
from trainables.training.run import Run
from trainables.training.workspace import Workspace

torch.set_num_threads(1)

ARMS = {
    "retro": {},
    "another adapter": {"adapter": "mlp"},
    "another head": {"head": "fresh"},
    "another loss": {"gamma": 3.0, "mean_student": False},
    "another rate": {"lr": 1e-3},
    "seed": {"method": "seed"},
    "moco": {"method": "moco"},
}
STUDY = {"name": "pairs", "base": {**BASE, "epochs": 1}, "design": "compare", "arms": ARMS, "replicates": 2}


class Start(NamedTuple):
    """What a trial begins with."""

    student: dict[str, torch.Tensor]
    batch: Batch
    validation: list[int]
    epoch: list[list[int]]  # ids of every batch of the first epoch


class _Enough(Exception):
    pass


def start(trial: TrialSpec, place: Workspace) -> Start:
    seen: list[Batch] = []

    def forward(batch: Batch) -> Losses:
        seen.append(batch)
        raise _Enough

    with isolated(trial.seed):
        run = Run(trial, place)
        student = {name: value.clone() for name, value in run.method.student.state_dict().items()}
        run.method.forward = forward  # type: ignore[method-assign]
        with pytest.raises(_Enough):
            run.train_epoch()
    from trainables.data.loader import order

    ids = order(run.data.train_ids, trial.seed, 1, trial.optim, 0, 1)
    return Start(student, seen[0], run.data.val_ids.tolist(), [batch.tolist() for batch in ids])


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Start]:
    root = tmp_path_factory.mktemp("pairs")
    spec = build_study(STUDY, root)
    found = {}
    for label in spec.arms:
        for seed in (0, 1):
            trial = spec.arm_trial(label, seed)
            place = Workspace(root / f"{label}-{seed}", root / "cache", root / "teachers")
            prepare(trial, place)
            found[label, seed] = start(trial, place)
    return found


@pytest.mark.parametrize("label", list(ARMS)[1:])
def test_arms_begin_with_the_same_bits(starts: dict[tuple[str, int], Start], label: str) -> None:
    for seed in (0, 1):
        base, arm = starts["retro", seed], starts[label, seed]
        assert base.student.keys() == arm.student.keys()
        assert all(torch.equal(value, arm.student[name]) for name, value in base.student.items())
        assert torch.equal(base.batch.ids, arm.batch.ids) and torch.equal(base.batch.labels, arm.batch.labels)
        views = list(zip(base.batch.views, arm.batch.views, strict=False))
        assert views and all(torch.equal(a, b) for a, b in views)
        assert base.validation == arm.validation and base.epoch == arm.epoch


def test_another_seed_gives_another_student_order_and_views(starts: dict[tuple[str, int], Start]) -> None:
    a, b = starts["retro", 0], starts["retro", 1]
    assert any(not torch.equal(value, b.student[name]) for name, value in a.student.items())
    assert not torch.equal(a.batch.ids, b.batch.ids)
    assert not torch.equal(a.batch.views[0], b.batch.views[0])
    assert a.validation == b.validation, "the split is the data's, not the replicate's"
