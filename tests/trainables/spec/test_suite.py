"""Suites and tasks as data: presets, names, what counts for a task's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.core.errors import UserError
from trainables.spec.parse import build
from trainables.spec.suite import TASKS, SuiteSpec, SuiteTask
from trainables.spec.suite_trained import FineTuneTask, LinearTask
from trainables.spec.trial import DataSpec

DIGITS = DataSpec()


def task(**fields: Any) -> SuiteTask:
    return build(TASKS[fields["task"]], fields)


def test_the_presets_are_the_published_settings() -> None:
    moco = build(LinearTask, {"preset": "moco"})
    assert moco.lr == (30.0,) and moco.epochs == 100
    optim = moco.optim_spec(30.0)
    assert (optim.optimizer, optim.sgd_momentum, optim.weight_decay) == ("momentum", 0.9, 0.0)
    assert (optim.batch_size, optim.decay_epochs, optim.decay_rate) == (256, (60, 80), 0.1)
    assert build(LinearTask, {}).model_copy(update={"preset": "moco"}) == moco  # the default
    semi = build(FineTuneTask, {"preset": "swav_1"})
    assert semi.lr[0] * semi.head_lr == pytest.approx(5.0)  # lr_last_layer of 1 %
    assert all(build(LinearTask, {"preset": name}).optim_spec(1.0) for name in LinearTask.presets)
    assert all(build(FineTuneTask, {"preset": name}).optim_spec(1.0) for name in FineTuneTask.presets)


def test_what_is_written_wins_over_the_preset() -> None:
    changed = build(LinearTask, {"preset": "disco", "lr": 1, "optim": {"batch_size": 64}})
    optim = changed.optim_spec(changed.lr[0])
    assert changed.lr == (1.0,) and (optim.batch_size, optim.decay_rate, optim.decay_epochs[0]) == (
        64,
        0.5,
        5,
    )
    assert optim.precision == "float32"  # features that are frozen are those of the other probes


def test_a_task_survives_plain_types() -> None:
    for written in (
        task(task="frozen", labels="1%"),
        task(task="linear", labels={"per_class": 5}, data={"name": "mnist_5k"}),
        task(task="finetune", preset="swav_10", layer_decay=[0.65, 0.75]),
    ):
        plain = written.model_dump(mode="json")
        assert build(TASKS[plain["task"]], plain) == written


def test_a_task_is_named_by_what_defines_its_result(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a.png\n")
    two.write_text("a.png\n")
    listed = task(task="frozen", labels=str(one)).key(DIGITS)
    assert listed == task(task="frozen", labels=str(two)).key(DIGITS)  # another path
    two.write_text("b.png\n")
    assert listed != task(task="frozen", labels=str(two)).key(DIGITS)
    assert task(task="linear").key(DIGITS) == task(task="linear", preset="moco").key(DIGITS)
    assert task(task="linear").key(DIGITS) != task(task="linear", preset="disco").key(DIGITS)
    assert task(task="frozen", labels=0.1).key(DIGITS) == task(task="frozen", labels="10 %").key(DIGITS)
    moved = DIGITS.model_copy(update={"path": tmp_path})
    assert task(task="frozen").key(moved) == task(task="frozen").key(DIGITS)


def test_images_at_another_path_are_another_task() -> None:
    one, other = (task(task="frozen", data={"name": "folder", "path": path}) for path in ("/a", "/b"))
    assert one.key(DIGITS) != other.key(DIGITS)
    below = DataSpec(name="folder", path=Path("/a"))
    assert task(task="frozen", data={"path": "/b"}).key(below) != task(task="frozen").key(below)


def test_another_data_set_is_seen_at_the_student_s_size() -> None:
    own = DataSpec(name="imagenet", image_size=224, margin=32, keep="jpeg", short_side=300, split_seed=7)
    other = task(task="frozen", data={"name": "cars"}).data_of(own)
    assert (other.name, other.image_size, other.margin, other.keep, other.split_seed) == (
        "cars",
        224,
        32,
        "jpeg",
        0,
    )
    small = task(task="frozen", data={"name": "cifar10", "keep": "raw", "margin": 0}).data_of(own)
    assert (small.keep, small.stored, small.short_side) == (
        "raw",
        224,
        256,
    )  # short_side goes with jpeg alone


def test_names_of_tasks_are_for_paths_and_tables() -> None:
    with pytest.raises(UserError, match=r"tasks.a/b: is no name of a task"):
        build(SuiteSpec, {"name": "s", "tasks": {"a/b": {"task": "frozen"}}})
