"""Sweeps as they are written: what is read, what follows from it, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.ablation.study import find_study
from raykd.spec.difference import difference
from raykd.spec.overrides import lay_over
from raykd.spec.samplers import TPE
from raykd.spec.search import SearchSpec, build_sweep, find_space, load_sweep
from raykd.spec.sections import parse_duration
from raykd.spec.shipped import spaces
from trainables.core.errors import UserError

BASE: dict[str, Any] = {
    "name": "s",
    "method": "retro",
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 2}},
    "epochs": 8,
    "samples": 4,
    "fixed": {"queue_size": 512},
    "axes": {"gamma": {"log": [0.01, 1]}},
}
BOTH = {
    **BASE,
    "method": ["retro", "moco"],
    "axes": {"gamma": [0.1, 1], "head_ratio": [1, 2], "lr": [1e-3, 2e-3]},
}


def refused(raw: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        spec = build_sweep(raw)
        for params in spec.space.corners():
            spec.trial(params, 0)
    return caught.value


def test_a_sweep_is_read_back_from_what_it_writes() -> None:
    spec = build_sweep(
        {
            **BOTH,
            "time_limit": "2h",
            "points": [{"lr": 1e-3}],
            "sampler": {"name": "nsgaii", "population_size": 6},
            "seeds": [0, 3],
            "baseline": {"epochs": 3},
        }
    )
    again = SearchSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec and again.hash() == spec.hash()
    assert again.trials == 8


def test_of_two_settings_the_narrower_wins() -> None:
    raw = {**BASE, "preset": "digits", "axes": {}}
    assert build_sweep(raw).trial({}, 0).optim.lr == 2e-3
    raw["optim"] = {"lr": 0.1}
    assert build_sweep(raw).trial({}, 0).optim.lr == 0.1
    raw["fixed"] = {"lr": 0.2}
    assert build_sweep(raw).trial({}, 0).optim.lr == 0.2
    raw["fixed"] = {"retro.lr": 0.3, "lr": 0.2}
    assert build_sweep(raw).trial({}, 0).optim.lr == 0.3
    searched = build_sweep({**raw, "fixed": {}, "axes": {"lr": [0.4]}})
    assert searched.trial({"lr": 0.4}, 0).optim.lr == 0.4
    assert searched.trial({}, 0).optim.lr == 0.1  # without the axis: what the file says


def test_a_section_that_is_one_plain_value() -> None:
    training = {"method": "moco", "epochs": 2}
    plain: dict[str, Any] = {
        "student": "test_efficientnet",
        "teacher": {"arch": "test_resnet", "train": training},
        "data": "digits",
        "views": "light",
        "optim": "sgd",
        "probe": "knn",
        "scheduler": "none",
        "sampler": "random",
        "workers": 2,
        "baseline": "moco",
    }
    spelled = {
        **plain,
        "student": {"arch": "test_efficientnet"},
        "data": {"name": "digits"},
        "views": {"recipe": "light"},
        "optim": {"optimizer": "sgd"},
        "probe": {"score": "knn"},
        "scheduler": {"name": "none"},
        "sampler": {"name": "random"},
        "workers": {"count": 2},
        "baseline": {"method": "moco"},
    }
    assert build_sweep({**BASE, **plain}).hash() == build_sweep({**BASE, **spelled}).hash()
    # A part may be set of what the file says in one word.
    raw = lay_over({**BASE, "scheduler": "asha"}, "scheduler.grace=2")
    assert build_sweep(raw).scheduler.grace == 2
    raw = lay_over({**BASE, "teacher": {"arch": "test_resnet", "train": "moco"}}, "teacher.train.epochs=3")
    assert build_sweep(raw).trial({}, 0).teacher.train.epochs == 3  # type: ignore[union-attr]


def test_axes_take_part_where_their_field_is() -> None:
    spec = build_sweep({**BOTH, "axes": {**BOTH["axes"], "moco.queue_size": [256, 512]}})
    found = list(spec.space.grid(2))
    for params in found:
        assert ("gamma" in params) == (params["method"] == "retro")
        assert ("head_ratio" in params) == ("moco.queue_size" in params) == (params["method"] == "moco")
    assert len(found) == 2 * 2 + 2 * 2 * 2
    trials = [spec.trial(params, 0) for params in found]
    assert len({trial.signature() for trial in trials}) == len(found)
    assert all(t.config["queue_size"] == 512 for t in trials if t.method == "retro")


def test_conditions_and_their_order() -> None:
    axes = {
        "momentum": {"pick": [0.9, 0.99], "when": {"head": ["tuned", "fresh"]}},
        "head": {"pick": ["frozen", "tuned", "fresh"], "when": {"adapter": "mlp"}},
        "adapter": ["linear", "mlp"],
    }
    space = build_sweep({**BASE, "axes": axes}).space
    assert list(space.axes) == ["adapter", "head", "momentum"]
    assert [len(params) for params in space.grid(1)] == [1, 2, 3, 3, 3, 3]
    assert space.around({"momentum": 0.99}) == {"adapter": "mlp", "head": "tuned", "momentum": 0.99}


def test_a_preset_for_each_method() -> None:
    spec = build_sweep({**BOTH, "preset": {"moco": "digits"}, "axes": {}, "fixed": {}})
    assert spec.trial({"method": "moco"}, 0).config["momentum"] == 0.99
    assert spec.trial({"method": "retro"}, 0).config["momentum"] == 0.999


def test_the_baseline_shares_the_protocol() -> None:
    raw = {
        **BASE,
        "views": {"strength": 0.5},
        "optim": {"lr": 0.01, "batch_size": 64},
        "fixed": {"queue_size": 512, "weight_decay": 0.1, "views.recipe": "light"},
        "baseline": {
            "method": "moco",
            "preset": "digits",
            "optim": {"lr": 0.02},
            "config": {"queue_size": 256},
        },
        "seeds": [7],
    }
    trial = build_sweep(raw).baseline_trial()
    assert (trial.method, trial.teacher, trial.epochs, trial.seed) == ("moco", None, 8, 7)
    assert (trial.views.strength, trial.views.recipe) == (0.5, "light")
    assert (trial.optim.lr, trial.optim.batch_size, trial.optim.weight_decay) == (0.02, 64, 0.1)
    assert trial.config["queue_size"] == 256 and trial.config["momentum"] == 0.99
    assert trial.student == build_sweep(raw).trial({}, 7).student


def test_a_grid_has_its_own_number_of_samples() -> None:
    raw = {**BASE, "samples": None, "axes": {"gamma": {"log": [0.1, 1]}, "adapter": ["linear", "mlp"]}}
    assert build_sweep({**raw, "sampler": "grid"}).samples == 6
    assert build_sweep({**raw, "sampler": {"name": "grid", "levels": 5}}).samples == 10
    assert build_sweep({**raw, "sampler": {"name": "grid"}, "samples": 2}).samples == 2


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"gamma": 3}, "gamma", "`fixed` or `axes`"),
        ({"lr": 3}, "lr", "`optim.lr`"),
        ({"sampels": 3}, "sampels", "Did you mean 'samples'?"),
        ({"name": "../x"}, "name", "the name of a folder"),
        ({"name": ".x"}, "name", "the name of a folder"),
        ({"name": "-x"}, "name", "the name of a folder"),
        ({"name": "a b"}, "name", "the name of a folder"),
        ({"name": "x\n"}, "name", "the name of a folder"),
        ({"name": ""}, "name", "the name of a folder"),
        ({"name": 3}, "name", "Expected text"),
        ({"method": "retroo"}, "method", "Did you mean 'retro'?"),
        ({"method": []}, "method", "no method"),
        ({"method": ["retro", "retro"]}, "method.1", "twice"),
        ({"preset": "digitz"}, "preset", "Did you mean 'digits'?"),
        ({"optim": {"lrr": 1}}, "optim.lrr", "Did you mean 'lr'?"),
        ({"optim": 3}, "optim.optimizer", "wrong value (got 3)"),
        ({"optim": [3]}, "optim", "is not a mapping"),
        ({"epochs": 0}, "epochs", "greater than or equal to 1"),
        ({"epochs": None}, "epochs", "a whole number"),
        ({"samples": None}, "samples", "a whole number"),
        ({"samples": True}, "samples", "not yes or no"),
        ({"seeds": []}, "seeds", "no seed"),
        ({"seeds": [1, 1]}, "seeds.1", "twice"),
        ({"seeds": 3}, "seeds", "Expected a list"),
        ({"axes": 3}, "axes", "is not a mapping"),
        ({"axes": {"gama": [1]}}, "axes.gama", "Did you mean 'gamma'?"),
        ({"axes": {"head_ratio": [1]}}, "axes.head_ratio", "belongs to moco"),
        ({"axes": {"gamma": {"log": [0, 1]}}}, "axes.gamma.log", "low > 0"),
        ({"axes": {"gamma": {"uniform": [-1, 1]}}}, "axes.gamma", "greater than or equal to 0"),
        ({"axes": {"batch_size": {"log": [32, 64]}}}, "axes.batch_size", "a whole number"),
        ({"axes": {"adapter": ["linear", "mpl"]}}, "axes.adapter", "Did you mean 'mlp'?"),
        ({"axes": {"data.path": ["a"]}}, "axes.data.path", "where files lie"),
        ({"axes": {"data.download": [True]}}, "axes.data.download", "where files lie"),
        ({"axes": {"seed": [1, 2]}}, "axes.seed", "seeds: [0, 1, 2]"),
        ({"axes": {"epochs": [1, 2]}}, "axes.epochs", "budget"),
        ({"axes": {"method": ["retro", "moco"]}}, "axes.method", "at the top level"),
        ({"axes": {"probe.score": ["knn", "ridge"]}}, "axes.probe.score", "do not compare"),
        ({"axes": {"lr": [1, 2], "retro.lr": [3, 4]}}, "axes.retro.lr", "same field"),
        ({"axes": {"queue_size": [256]}}, "fixed.queue_size", "is an axis too"),
        ({"axes": {"gamma": {"pick": [1], "when": {"kind": "mlp"}}}}, "axes.gamma.when.kind", "no such axis"),
        (
            {"axes": {"gamma": {"pick": [1], "when": {"lr": 1}}, "lr": {"log": [1, 2]}}},
            "axes.gamma.when.lr",
            "no value will hit",
        ),
        (
            {"axes": {"gamma": {"pick": [1], "when": {"head": "frozn"}}, "head": ["frozen"]}},
            "axes.gamma.when.head",
            "cannot take",
        ),
        (
            {
                "axes": {
                    "gamma": {"pick": [1], "when": {"head": "tuned"}},
                    "head": {"pick": ["tuned"], "when": {"gamma": 1}},
                }
            },
            "axes.gamma.when",
            "circle",
        ),
        ({"fixed": {"gama": 1}}, "fixed.gama", "Did you mean"),
        ({"fixed": {"queue_size": "many"}}, "fixed.queue_size", "a whole number"),
        ({"points": [{"gamma": 2}]}, "points.0.gamma", "log [0.01, 1]"),
        ({"points": [{"gamma": 0.1}, {"gama": 2}]}, "points.1.gama", "Did you mean 'gamma'?"),
        ({"points": [{"method": "moco"}]}, "points.0.method", "no such axis"),
        ({"points": [3]}, "points.0", "name: value"),
        ({"sampler": "tpee"}, "sampler.name", "Did you mean 'tpe'?"),
        ({"sampler": {"name": "random", "popsize": 3}}, "sampler.popsize", "no such field"),
        ({"sampler": {"multivariate": False}}, "sampler.group", "needs multivariate"),
        ({"sampler": {"seed": -1}}, "sampler.seed", "greater than or equal to 0"),
        ({"scheduler": {"name": "ash"}}, "scheduler.name", "Did you mean 'asha'?"),
        ({"scheduler": {"grace": 9}}, "scheduler.grace", "at most 8"),
        ({"scheduler": {"factor": 1}}, "scheduler.factor", "greater than 1"),
        ({"workers": {"gpus": 1.5}}, "workers.gpus", "neither"),
        ({"workers": {"count": 0}}, "workers.count", "greater than or equal to 1"),
        ({"time_limit": "soon"}, "time_limit", "2h30m"),
        ({"time_limit": 0}, "time_limit", "greater than 0"),
        ({"references": ["teachr"]}, "references.0", "Did you mean 'teacher'?"),
        ({"baseline": {"methd": "moco"}}, "baseline.methd", "Did you mean 'method'?"),
    ],
)
def test_a_mistake_is_named_where_it_stands(change: dict[str, Any], path: str, words: str) -> None:
    error = refused({**BASE, **change})
    assert error.field == path and words in str(error)


def test_a_condition_on_a_method_without_the_field() -> None:
    axes = {"gamma": {"pick": [0.1], "when": {"method": "moco"}}}
    error = refused({**BOTH, "axes": axes})
    assert error.field == "axes.gamma.when.method" and "only retro" in str(error)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("2h30m", 9000), ("90s", 90), ("1d", 86400), ("1h 5s", 3605), ("0.5h", 1800), (5, 5), (2.5, 2.5)],
)
def test_durations(written: Any, seconds: float) -> None:
    assert parse_duration(written) == seconds
    assert build_sweep({**BASE, "time_limit": written}).time_limit == seconds


@pytest.mark.parametrize("written", ["", "3", "h", "2h30", "30m2h", "-1h", "1e3s"])
def test_no_durations(written: str) -> None:
    with pytest.raises(UserError):
        parse_duration(written)


# --- files, names and overrides -----------------------------------------------------------------------------


def write(folder: Path, text: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(text or json.dumps({k: v for k, v in BASE.items() if k != "name"}))
    return path


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("samples=7", ("samples",), 7),
        ("optim.lr=1e-3", ("optim", "lr"), 1e-3),
        ("fixed.views.strength=0.5", ("fixed", "views.strength"), 0.5),
        ("fixed.momentum=0.9", ("fixed", "momentum"), 0.9),
        ("teacher.train.epochs=9", ("teacher", "train", "epochs"), 9),
        ("student.options.channel_multiplier=0.5", ("student", "options", "channel_multiplier"), 0.5),
        ("name=other", ("name",), "other"),
        ("time_limit=", ("time_limit",), None),
        ("seeds=[1, 2]", ("seeds",), (1, 2)),
        ("scheduler={name: none}", ("scheduler", "name"), "none"),
    ],
)
def test_overrides(tmp_path: Path, override: str, path: tuple[str, ...], value: Any) -> None:
    spec = load_sweep(write(tmp_path), [override])
    here: Any = spec
    for step in path:
        here = here[step] if isinstance(here, dict) else getattr(here, step)
    assert here == value


@pytest.mark.parametrize(
    ("override", "name", "described"),
    [
        ("axes.gamma=[0.1, 1]", "gamma", "pick 0.1, 1"),
        ("axes.gamma.log=[0.1, 1]", "gamma", "log [0.1, 1]"),
        ("axes.gamma.uniform=[0.1, 1]", "gamma", "uniform [0.1, 1]"),
        ("axes.views.strength.uniform=[0, 1]", "views.strength", "uniform [0, 1]"),
        ("axes.views.strength={uniform: [0, 1]}", "views.strength", "uniform [0, 1]"),
        ("axes.retro.temperature=[0.1]", "retro.temperature", "pick 0.1"),
    ],
)
def test_overrides_of_axes(tmp_path: Path, override: str, name: str, described: str) -> None:
    assert load_sweep(write(tmp_path), [override]).axes[name].describe() == described


def test_an_empty_override_takes_an_axis_out(tmp_path: Path) -> None:
    spec = load_sweep(write(tmp_path), ["axes.gamma=", "fixed.gamma=0.3"])
    assert not spec.axes and spec.trial({}, 0).config["gamma"] == 0.3


def test_a_new_range_keeps_its_condition(tmp_path: Path) -> None:
    kept = ["axes.head=[frozen, tuned]", "axes.gamma.when={head: tuned}", "axes.gamma.uniform=[0, 1]"]
    assert load_sweep(write(tmp_path), kept).axes["gamma"].when == {"head": ("tuned",)}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("samples", "path=value"),
        ("=3", "path=value"),
        ("optim..lr=3", "is not a path"),
        ("epochs.x=3", "`epochs` has no parts"),
        ("sample=3", "Did you mean 'samples'?"),
        ("scheduler.graze=3", "Did you mean 'grace'?"),
        ("optim.lr=[1", "not valid YAML"),
        ("axes.gamma.lgo=[1, 2]", "no such"),
    ],
)
def test_overrides_that_do_not_work(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        spec = load_sweep(write(tmp_path), [override])
        assert spec.space
    assert words in str(caught.value)


def test_a_file_names_its_sweep(tmp_path: Path) -> None:
    assert load_sweep(write(tmp_path)).name == "mine"


def test_a_search_space_is_known_by_its_name() -> None:
    assert find_space("quickstart") == spaces()["quickstart"]
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        find_space("quikstart")


@pytest.mark.parametrize("find", [find_space, find_study])
def test_a_file_of_nearly_that_name_is_suggested(find: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("mine.yaml", "other.yaml", "mine.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=re.escape(f"Did you mean '{tmp_path}/mine.yaml'?")):
        find(f"{tmp_path}/mine.yml")
    with pytest.raises(UserError, match="no such file") as caught:
        find(f"{tmp_path}/absent/mine.yml")
    assert "mine.yaml" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1", "a", "", "name: x", "name: x\nname: y", "{"])
def test_files_that_are_no_sweep(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        load_sweep(write(tmp_path, text or " "))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text("ab.0", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["log", "pick", "when", "name", "lr", "gamma", "x.y"]), inner, max_size=2
        )
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(SearchSpec.model_fields)), anything, max_size=3))
@settings(max_examples=300)
def test_whatever_is_written_is_a_sweep_or_a_user_error(change: dict[str, Any]) -> None:
    try:
        spec = build_sweep({**BASE, **change})
        for params in list(spec.space.corners())[:3]:
            spec.trial(params, 0)
    except UserError as error:
        assert error.field and len(str(error)) < 3000


# --- differences and imports --------------------------------------------------------------------------------


def test_a_difference_is_told_field_by_field() -> None:
    old = build_sweep(BASE)
    assert difference(old, old) == []
    new = build_sweep({**BASE, "samples": 5, "axes": {"gamma": {"log": [0.01, 2]}, "lr": [1]}, "lanes": 2})
    assert difference(old, new) == [
        "axes.gamma.log: [0.01, 1.0] -> [0.01, 2.0]",
        "axes.lr.pick: nothing -> [1]",
        "axes.lr.when: nothing -> {}",
        "lanes: None -> 2",
        "samples: 4 -> 5",
    ]
    assert old.hash() != new.hash()


def test_arguments_of_the_sampler_are_explicit() -> None:
    spec = build_sweep(BASE)
    assert isinstance(spec.sampler, TPE)
    assert set(spec.model_dump()["sampler"]) >= {
        "n_startup_trials",
        "multivariate",
        "group",
        "constant_liar",
        "seed",
    }


def test_reading_a_spec_needs_neither_torch_nor_ray() -> None:
    code = (
        "import json, sys; from raykd.spec.search import SearchSpec, build_sweep;"
        f"spec = build_sweep(json.loads({json.dumps(json.dumps(BASE))}));"
        "assert SearchSpec.model_validate(spec.model_dump(mode='json')) == spec;"
        "loaded = {'torch', 'ray', 'optuna', 'timm'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
