"""A search starts with each method's own settings, as far as its axes have them."""

from __future__ import annotations

from typing import Any

import pytest

from raykd.runs.changed_spec import as_begun
from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.search import SearchSpec, build_sweep, load_sweep
from raykd.spec.shipped import spaces
from trainables.core.errors import UserError
from trainables.training.flat_names import flatten

RETRO: dict[str, Any] = {
    "name": "s",
    "method": "retro",
    "preset": "digits",
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "epochs": 2}},
    "optim": {"lr": 0.004},
    "epochs": 8,
    "samples": 6,
    "axes": {"lr": {"log": [1e-3, 1e-1]}, "adapter": ["mlp", "linear"], "clip_grad": [None, 1.0]},
}


def first(**change: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(build_sweep({**RETRO, **change}).first_points)


def test_the_first_configuration_is_the_method_s_own_also_where_it_is_null() -> None:
    own = flatten(build_sweep({**RETRO, "axes": {"weight_decay": [0, 1]}}).trial({}, 0))
    point = {"lr": 0.004, "adapter": own["adapter"], "clip_grad": own["clip_grad"]}
    assert own["clip_grad"] is None and first() == [("preset", point)]
    spec = build_sweep(RETRO)
    proposed = [found for found in iter(Proposer(spec).propose, None) if isinstance(found, Proposal)]
    assert [found.origin for found in proposed] == ["preset"] + ["sampler"] * 5
    assert proposed[0].params == point and spec.trial(point, 0).signature() == proposed[0].trial


def test_what_an_axis_cannot_take_is_left_to_the_sampler() -> None:
    axes = {"lr": {"log": [1e-5, 1e-3]}, "adapter": ["linear", "mlp"]}
    assert first(axes=axes) == [("preset", {"adapter": "linear"})]
    beyond = {"lr": {"log": [1e-5, 1e-3]}, "weight_decay": {"log": [0.5, 0.9]}}
    assert first(axes=beyond) == [], "nothing is the method's own"
    when = {"adapter": ["mlp"], "lr": {"log": [1e-3, 1e-1], "when": {"adapter": "mlp"}}}
    assert first(axes=when) == [], "an axis whose condition is left to the sampler is left, too"


def test_each_method_of_several_has_its_own() -> None:
    axes = {"lr": {"log": [1e-3, 1e-1]}, "gamma": {"log": [0.01, 1]}, "momentum": {"uniform": [0.9, 1]}}
    found = first(method=["retro", "seed", "moco"], axes=axes, optim={})
    assert [point["method"] for _, point in found] == ["retro", "seed", "moco"]
    for _, point in found:
        alone = build_sweep(
            {**RETRO, "method": point["method"], "axes": {"weight_decay": [0, 1]}, "optim": {}}
        )
        own = flatten(alone.trial({}, 0))
        for name in axes.keys() & own.keys():
            assert point[name] == own[name]


def test_an_axis_over_students_is_left_and_the_others_are_not() -> None:
    axes = {**RETRO["axes"], "student.arch": ["test_efficientnet", "test_resnet"]}
    [(_, point)] = first(student={}, axes=axes)
    assert point["lr"] == 0.004 and "adapter" in point and "student.arch" not in point


def test_points_of_the_user_come_first_and_equal_ones_once() -> None:
    [(_, own)] = first()
    assert first(points=[own]) == [("point", own)]
    assert first(points=[{"lr": 0.01}]) == [("point", {"lr": 0.01}), ("preset", own)]


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_random_and_grid_search_take_no_presets(sampler: str) -> None:
    assert first(sampler=sampler, samples=None if sampler == "grid" else 6) == []


def test_older_sweeps_start_as_they_did_and_their_files_have_not_changed() -> None:
    new = build_sweep(RETRO)
    raw = new.model_dump(mode="json")
    del raw["start"]
    old = SearchSpec.model_validate(raw)  # of a ledger without the field
    assert old.first_points == () and as_begun(new, old).hash() == old.hash()
    assert as_begun(new, new).hash() == new.hash() != old.hash()
    with pytest.raises(UserError, match=r"^start: "):
        build_sweep({**RETRO, "start": "preset"})


@pytest.mark.parametrize("name", sorted(spaces()))
def test_presets_of_the_spaces_are_in_their_spaces(name: str) -> None:
    spec = load_sweep(name)
    for _, point in spec.first_points:
        whole = spec.space.around(point)
        assert whole.items() >= point.items(), "each value takes part"
        spec.trial(whole, 0)
