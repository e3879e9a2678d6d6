"""A task that trains goes on after an interruption: from checkpoints, and from candidates that are done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks import outcome
from tiny_trials import workspace

from trainables.downstream import fitting, trained


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that digits are decoded once."""
    return tmp_path_factory.mktemp("interrupted")


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"lr": 0.1, "epochs": 4, "labels": 0.3}
    whole = outcome(root, "finetune", **fields)
    monkeypatch.setattr(fitting, "_EVERY_S", 0.0)
    train_epoch = fitting._Fit.train_epoch
    trained_epochs: list[int] = []

    def crash(self: Any) -> None:
        if self.epoch == 2 and len(trained_epochs) == 2:
            raise KeyboardInterrupt
        trained_epochs.append(self.epoch + 1)
        train_epoch(self)

    monkeypatch.setattr(fitting._Fit, "train_epoch", crash)
    with pytest.raises(KeyboardInterrupt):
        outcome(root, "finetune", **fields)
    trained_epochs.append(0)  # a second process
    again = outcome(root, "finetune", **fields)
    assert trained_epochs == [1, 2, 0, 3, 4]
    assert np.array_equal(whole.hits, again.hits)  # type: ignore[arg-type]


class Fits:
    """Counts the trainings of a task by learning rate and number of images, and dies in one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[float, int]] = []
        self.dies_at = 0  # so many trainings have begun
        self._fit = trained.fit
        monkeypatch.setattr(trained, "fit", self)

    def __call__(self, task: Any, optim: Any, make: Any, data: Any, spec: Any, ids: Any, *rest: Any) -> Any:
        self.made.append((optim.lr, len(ids)))
        if len(self.made) == self.dies_at:
            raise KeyboardInterrupt
        return self._fit(task, optim, make, data, spec, ids, *rest)

    def die(self, at: int, root: Path, **fields: Any) -> None:
        """Interrupt the task in its training number `at`."""
        self.made, self.dies_at = [], at
        with pytest.raises(KeyboardInterrupt):
            outcome(root, "finetune", **fields)
        self.made, self.dies_at = [], 0


def test_candidates_that_are_done_are_not_trained_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"lr": [1e20, 0.05, 1e-6], "epochs": 1}
    fits = Fits(monkeypatch)
    whole = outcome(root, "finetune", **fields)
    every = list(fits.made)
    assert [lr for lr, _ in every] == [1e20, 0.05, 1e-6, 0.05]  # the first one diverges
    for at in (3, 4):  # in the last candidate, and in the training of the chosen one
        fits.die(at, root, **fields)
        again = outcome(root, "finetune", **fields)
        assert fits.made == every[at - 1 :]
        assert again.metrics() == whole.metrics() and np.array_equal(whole.hits, again.hits)  # type: ignore[arg-type]
        assert not list(workspace(root, "task").folder.glob("*"))


def test_of_few_labels_the_best_candidate_alone_is_trained_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"lr": [0.05, 1e-6], "labels": 0.3, "epochs": 1}
    fits = Fits(monkeypatch)
    whole = outcome(root, "finetune", **fields)
    fits.die(2, root, **fields)
    again = outcome(root, "finetune", **fields)
    assert [lr for lr, _ in fits.made] == [1e-6, 0.05]
    assert again.metrics() == whole.metrics() and np.array_equal(whole.hits, again.hits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "seed"), [({"head_lr": 2.0}, 0), ({"batch_norm": "eval"}, 0), ({"epochs": 2}, 0), ({}, 1)]
)
def test_candidates_of_another_task_or_seed_are_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], seed: int
) -> None:
    fields: dict[str, Any] = {"lr": [0.05, 1e-6], "labels": 0.1, "epochs": 1}
    fits = Fits(monkeypatch)
    fits.die(2, root, **fields)
    outcome(root, "finetune", seed=seed, **{**fields, **other})
    assert [lr for lr, _ in fits.made] == [0.05, 1e-6]


@pytest.mark.parametrize("content", ["", "[]", '{"known": {"candidate-0": 99}}', '{"identity": 1'])
def test_a_damaged_file_of_candidates_costs_trainings_and_not_the_task(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    fields: dict[str, Any] = {"lr": [0.05, 1e-6], "labels": 0.1, "epochs": 1}
    fits = Fits(monkeypatch)
    fits.die(2, root, **fields)
    (workspace(root, "task").folder / "candidates.json").write_text(content)
    outcome(root, "finetune", **fields)
    assert [lr for lr, _ in fits.made] == [0.05, 1e-6]


@pytest.mark.parametrize(
    "other", [{"lr": 0.1}, {"layer_decay": 0.5}, {"head_lr": 2.0}, {"optim": {"batch_size": 32}}]
)
def test_a_checkpoint_of_other_settings_is_not_resumed(
    root: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    """Such as those of a candidate that a repeated choice does not choose. Nothing of it is left, either."""
    fields: dict[str, Any] = {"lr": 0.05, "labels": 0.1, "epochs": 2}
    wanted = outcome(root, "finetune", **{**fields, **other})
    monkeypatch.setattr(fitting, "_EVERY_S", 0.0)
    train_epoch = fitting._Fit.train_epoch

    def crash(self: Any) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fitting._Fit, "train_epoch", crash)
        outcome(root, "finetune", **fields)
    assert list(workspace(root, "task").folder.glob("final-*/checkpoints/*"))
    found = outcome(root, "finetune", **{**fields, **other})
    assert np.array_equal(found.hits, wanted.hits)  # type: ignore[arg-type]
    assert not list(workspace(root, "task").folder.glob("*"))
