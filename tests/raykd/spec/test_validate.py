"""What is known to be wrong with a sweep before Ray starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import raykd.spec.validate
from raykd.spec.search import build_sweep, load_sweep
from raykd.spec.sections import WorkersSpec
from raykd.spec.validate import check_resources, describe_axes, validate
from trainables.core.errors import UserError

torch.set_num_threads(1)


def refused(*overrides: str, space: str = "quickstart") -> UserError:
    with pytest.raises(UserError) as caught:
        validate(load_sweep(space, list(overrides)))
    return caught.value


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["axes.queue_size=[256, 200]"], "axes.queue_size", "divisible by the global batch of 128"),
        (["axes.queue_size=[256, 2048]"], "axes.queue_size", "smaller than the 899 training images"),
        (["axes.queue_size=", "fixed.queue_size=1000"], "fixed.queue_size", "smaller than"),
        (["axes.batch_size=[128, 96]"], "axes.queue_size", "global batch of 96"),
        (["axes.batch_size=[128, 96]"], "axes.queue_size", "This is with adapter=linear, batch_size=96"),
        (["optim.batch_size=2000"], "optim.batch_size", "larger than the 899 images"),
        (["workers.count=3"], "optim.batch_size", "3 workers"),
        (["axes.accumulate=[1, 3]"], "optim.batch_size", "multiple of 3"),
        (["axes.adapter=[linear, mbconv]"], "axes.adapter", "1x1"),
        (["axes.views.strength.uniform=[0, 3]"], "axes.views.strength", "less than or equal to 2"),
        (["student.arch=test_efficientne"], "student.arch", "test_efficientnet"),
        (["student.options.chanel=1"], "student.options", "chanel"),
        (["axes.student.arch=[test_efficientnet, nope]"], "axes.student.arch", "nope"),
        (["student={arch: test_convnext}"], "student.arch", "16 px"),
        (["data.name=digit"], "data.name", "Did you mean 'digits'?"),
        (["data.name=folder", "data.path=/nowhere"], "data.path", "/nowhere"),
        (["probe.score=knnn"], "probe.score", "Did you mean 'knn'?"),
        (["probe.score=ridge_200shot"], "probe.score", "200 labels"),
        (["probe.point=adapter"], "baseline.probe.point", "'moco' has no such probe point"),
        (["views.recipe=digitz"], "views.recipe", "Did you mean 'digits'?"),
        (["teacher.arch=resnet5"], "teacher.arch", "resnet50"),
        (["teacher={arch: test_resnet}"], "teacher", "neither"),
        (["teacher={arch: test_resnet, checkpoint: /nope}"], "teacher.checkpoint", "/nope"),
        (["teacher.train.method=retro"], "teacher.train.method", "needs a teacher itself"),
        (["teacher.train.config.queue_size=1000"], "teacher.train.config.queue_size", "899"),
        (["teacher.train.optim.optimizer=adamww"], "teacher.train.optim.optimizer", "'adamw'"),
        (["optim.optimizer=adamww"], "optim.optimizer", "'adamw'"),
        (["optim.warmup_epochs=16"], "optim.warmup_epochs", "16 epochs"),
        (["baseline.config.queue_size=999"], "baseline.config.queue_size", "899"),
        (["baseline.method=retro"], "baseline.teacher", "learns from a teacher"),
        (["method=moco"], "axes.gamma", "belongs to cc, retro"),
        (["sampler={name: grid, levels: 3}", "samples=12"], "samples", "486 configurations"),
        (["points=[{adapter: linear, hidden: 3}]"], "points.0.hidden", "no such axis"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_named_where_it_stands(overrides: list[str], path: str, words: str) -> None:
    error = refused(*overrides)
    assert error.field == path and words in str(error), str(error)


def test_a_point_may_not_name_an_axis_that_takes_no_part() -> None:
    change = ["axes.momentum={pick: [0.9], when: {adapter: mlp}}", "fixed.momentum="]
    spec = load_sweep("quickstart", [*change[:1], "fixed={}", "points=[{adapter: linear, momentum: 0.9}]"])
    with pytest.raises(UserError, match=r"points\.0\.momentum: takes no part"):
        validate(spec)
    validate(load_sweep("quickstart", [*change[:1], "fixed={}", "points=[{momentum: 0.9}]"]))


def test_two_names_of_one_function_are_remarked_on() -> None:
    remarks = validate(load_sweep("quickstart", ["axes.adapter=[linear, conv1x1, mlp]"]))
    assert remarks == ["axes.adapter: linear and conv1x1 are one function here; one is enough"]


def test_by_rankme_nothing_is_put_beside_the_trials() -> None:
    spec = load_sweep("quickstart", ["probe.score=rankme"])
    assert spec.references and spec.wanted_references() == []
    assert validate(spec) == [
        "probe.score: rankme ranks trials of one method; nothing else is put beside them"
    ]


def test_a_search_without_axes_is_remarked_on() -> None:
    raw = {"name": "s", "method": "moco", "preset": "digits", "student": {"arch": "test_efficientnet"}}
    remarks = validate(build_sweep({**raw, "epochs": 4, "samples": 3, "references": []}))
    assert remarks == ["axes: there is nothing to search; all 3 samples are one configuration"]


def test_a_fault_in_a_combination_alone_is_found() -> None:
    # 96 divides 384, and 128 divides 512 and 384: only (512, 96) cannot work.
    overrides = ["axes.queue_size=[384, 512]", "axes.batch_size=[128, 96]"]
    error = refused(*overrides)
    assert error.field == "axes.queue_size" and "global batch of 96 (got 512)" in str(error)


def test_a_fault_in_a_large_space_is_found_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raykd.spec.validate, "COMBINATIONS", 20)
    axes = [f"axes.{name}.uniform=[0.1, 0.9]" for name in ("sgd_momentum", "decay_rate", "momentum")]
    assert validate(load_sweep("quickstart", ["fixed={}", *axes])) == []
    assert refused("fixed={}", *axes, "axes.queue_size=[256, 200]").field == "axes.queue_size"


def test_a_grid_is_held_to_the_values_that_it_visits() -> None:
    # 128, 256, 384, 512: multiples of the batch, while 129 is none.
    axis = "axes={queue_size: {integer: [128, 512]}}"
    assert validate(load_sweep("quickstart", [axis, "sampler={name: grid, levels: 4}", "samples="])) == []
    error = refused(axis, "sampler={name: grid, levels: 3}", "samples=", "optim.batch_size=96")
    assert error.field == "axes.queue_size"


def test_a_fault_of_whole_numbers_in_a_combination_is_found() -> None:
    # Each axis alone passes: 130 goes with a batch of 65 or 26, not with 128.
    error = refused("fixed={}", "axes={queue_size: {integer: [256, 260]}, batch_size: [128, 64]}")
    assert error.field == "axes.queue_size"


def test_a_sweep_over_methods() -> None:
    overrides = ["method=[retro, moco]", "axes.head_ratio=[1, 2]"]
    assert validate(load_sweep("quickstart", overrides)) == []
    error = refused(*overrides, "axes.moco.weight_decay=[0, -1]")
    assert error.field == "axes.moco.weight_decay"


def test_axes_are_described_for_a_dry_run() -> None:
    rows = describe_axes(load_sweep("quickstart", ["method=[retro, moco]"]))
    by_name = {name: (spread, about) for name, spread, about in rows}
    assert by_name["method"][0] == "pick retro, moco"
    assert by_name["gamma"][0] == "log [0.003, 3]"
    assert by_name["gamma"][1].endswith("(when method is retro)")
    assert by_name["lr"][1] == "peak learning rate, used as it is"


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("workers", "nodes"),
    [
        ({}, [node(1)]),
        ({"count": 2}, [node(2)]),
        ({"count": 2}, [node(1), node(1)]),
        ({"gpus": 0.5, "count": 2}, [node(8, 1)]),
        ({"gpus": 0.4, "count": 4}, [node(8, 2)]),
        ({"gpus": 2}, [node(8, 2)]),
        ({"cpus": 0.1, "count": 10}, [node(1)]),
    ],
)
def test_resources_that_can_be_had(workers: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    check_resources(WorkersSpec(**workers), nodes)


@pytest.mark.parametrize(
    ("workers", "nodes", "path", "words"),
    [
        ({}, [], "workers.cpus", "the nodes have nothing"),
        ({}, [node(1, alive=False)], "workers.cpus", "nothing"),
        ({"cpus": 4}, [node(2), node(2)], "workers.cpus", "no node can hold a worker of 4 CPUs"),
        ({"count": 3}, [node(1), node(1)], "workers.count", "room for 2"),
        ({"gpus": 1}, [node(8)], "workers.gpus", "8 CPUs and 0 GPUs"),
        ({"gpus": 2}, [node(8, 1), node(8, 1)], "workers.cpus", "no node can hold"),
        ({"gpus": 0.6, "count": 3}, [node(8, 2)], "workers.count", "room for 2"),
        ({"gpus": 0.5, "count": 3, "cpus": 4}, [node(8, 2)], "workers.count", "room for 2"),
    ],
)
def test_resources_that_cannot(
    workers: dict[str, Any], nodes: list[dict[str, Any]], path: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_resources(WorkersSpec(**workers), nodes)
    assert caught.value.field == path and words in str(caught.value)


def test_validation_starts_no_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from raykd.spec.search import load_sweep; from raykd.spec.validate import validate;"
        "validate(load_sweep('quickstart')); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
