"""`teachers: {NAME: ...}` and the axis over them; several teachers at once; the same in studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command import SMALL

from raykd.ablation.study import build_study
from raykd.export.trial import config_of
from raykd.runs.auxiliary import to_prepare, untrained
from raykd.spec.document import parse_yaml
from raykd.spec.paths import absolute
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.validate import validate
from raykd.storage.open_storage import open_storage
from trainables.core.errors import UserError

TRAINED = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 2}}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two teachers from files, one to train, and two at once."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for name in ("a", "b"):
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), folder / f"{name}.pth")
    files = {name: {"arch": "test_resnet", "checkpoint": str(folder / f"{name}.pth")} for name in ("a", "b")}
    return {**files, "own": TRAINED, "both": ["a", {**files["b"], "weight": 0.5}]}


def sweep(named: dict[str, Any], **changed: Any) -> SearchSpec:
    raw = {**parse_yaml(SMALL, "small"), "method": "projector", "fixed": {}, "teachers": named}
    raw |= {"axes": {"teacher": ["a", "b", "both"]}, "samples": 6} | changed
    return build_sweep({key: value for key, value in raw.items() if value is not None})


def without_teacher(named: dict[str, Any], **changed: Any) -> SearchSpec:
    return sweep(named, **{"teacher": None, **changed})


def test_a_trial_has_the_teacher_and_not_its_name(named: dict[str, Any]) -> None:
    spec = without_teacher(named)
    plain = without_teacher(named, axes={}, teacher=named["a"], teachers={})
    assert spec.trial({"teacher": "a"}, 0) == plain.trial({}, 0)
    other_names = {"x": named["a"], "y": named["b"]}
    renamed = without_teacher(other_names, axes={"teacher": ["x", "y"]})
    assert renamed.trial({"teacher": "y"}, 0).signature() == spec.trial({"teacher": "b"}, 0).signature()
    both = spec.trial({"teacher": "both"}, 0)
    assert [teacher.weight for teacher in both.teachers] == [1.0, 0.5]
    names = {spec.trial({"teacher": name}, 0).signature() for name in ("a", "b", "both")}
    assert len(names) == 3
    assert spec.trial({}, 0) == spec.trial({"teacher": "a"}, 0)  # left out: the first
    assert without_teacher(named, teacher="b").trial({}, 0) == spec.trial({"teacher": "b"}, 0)
    validate(spec)
    recorded = SearchSpec.model_validate(spec.model_dump(mode="json"))
    assert recorded == spec and recorded.hash() == spec.hash()
    assert "teachers" not in plain.model_dump()  # as before there were names


def test_fields_of_a_teacher_are_laid_over_the_chosen_one(named: dict[str, Any]) -> None:
    axes = {"teacher": ["a", "b"], "teacher.batch_norm": ["eval", "batch"]}
    spec = without_teacher(named, axes=axes)
    for params in (
        {"teacher": "b", "teacher.batch_norm": "batch"},
        {"teacher.batch_norm": "batch", "teacher": "b"},
    ):
        trial = spec.trial(params, 0)
        assert trial.teacher is not None and trial.teacher.batch_norm == "batch"
        assert str(trial.teacher.checkpoint) == named["b"]["checkpoint"]
    fixed = without_teacher(
        named, axes={"lr": [1e-3, 1e-2]}, fixed={"teacher": "b", "teacher.batch_norm": "batch"}
    )
    trial = fixed.trial({"lr": 1e-3}, 0)
    assert trial.teacher is not None and trial.teacher.batch_norm == "batch"
    assert str(trial.teacher.checkpoint) == named["b"]["checkpoint"]


def test_every_teacher_is_prepared_once_and_has_a_row(named: dict[str, Any], tmp_path: Path) -> None:
    spec = without_teacher(named, axes={"teacher": ["a", "b", "both", "own"]})
    prepared = to_prepare(spec)
    files = [trial.teacher.checkpoint for trial in prepared if trial.teacher is not None]
    assert [file and file.stem for file in files] == ["a", "b", None]
    assert [trial.method for trial in untrained(spec, open_storage(str(tmp_path)))] == ["moco"]
    assert list(spec.teacher_rows()) == ["teacher-a", "teacher-b", "teacher-own"]
    assert spec.wanted_references() == ["raw_pixels", "untrained", *spec.teacher_rows(), "baseline"]
    trials = spec.trials_of_rows()
    assert list(trials) == list(spec.teacher_rows())
    assert [len(trial.teachers) for trial in trials.values()] == [1, 1, 1]
    assert trials["teacher-b"].teacher == spec.trial({"teacher": "b"}, 0).teacher
    fitted = {"x": {**named["a"], "head": "fit"}, "y": {**named["b"], "head": "fit"}}
    heads = without_teacher(fitted, axes={"teacher": ["x", "y"]})  # the head's preset is the trial's
    for name, trial in zip("xy", heads.trials_of_rows().values(), strict=True):
        assert trial.teacher == heads.trial({"teacher": name}, 0).teacher
    alone = without_teacher(named, axes={}, teacher="a")
    assert list(alone.teacher_rows()) == ["teacher"]  # as without names
    listed = without_teacher({}, axes={}, teacher=[named["a"], named["b"]])
    assert list(listed.teacher_rows()) == ["teacher-1", "teacher-2"]
    assert without_teacher(named, references=["untrained"]).wanted_references() == ["untrained"]


def test_paths_start_from_the_folder_of_the_sweep(tmp_path: Path) -> None:
    raw = {
        "teachers": {"a": {"arch": "x", "checkpoint": "a.pth"}, "c": [{"arch": "x", "checkpoint": "c.pth"}]},
        "teacher": ["a", {"arch": "x", "checkpoint": "b.pth"}],
    }
    found = absolute(raw, tmp_path)
    assert found["teachers"]["a"]["checkpoint"] == str(tmp_path / "a.pth")
    assert found["teachers"]["c"][0]["checkpoint"] == str(tmp_path / "c.pth")
    assert found["teacher"] == ["a", {"arch": "x", "checkpoint": str(tmp_path / "b.pth")}]


def test_mistakes_are_named_where_they_are_written(named: dict[str, Any], tmp_path: Path) -> None:
    gone = {**named, "gone": {"arch": "test_resnet", "checkpoint": str(tmp_path / "no.pth")}}
    bad = {**named, "bad": {"arch": "test_resnt", "checkpoint": named["a"]["checkpoint"]}}
    pair = {**named, "pair": ["a", "gone"], "gone": gone["gone"]}
    wrong: list[tuple[Any, str]] = [
        (
            lambda: without_teacher(named, axes={"teacher": ["a", "bb"]}),
            r"axes\.teacher: no such teacher.*'b'",
        ),
        (lambda: without_teacher({}, axes={"teacher": ["a"]}), r"axes\.teacher: there are no teachers with"),
        (
            lambda: without_teacher(named, axes={"teacher": {"log": [1, 2]}}),
            r"axes\.teacher: no such teacher",
        ),
        (lambda: without_teacher({"a b": TRAINED}), r"teachers\.a b: is no name"),
        (lambda: without_teacher({"a": "resnet18"}), r"teachers\.a: is no teacher"),
        (lambda: without_teacher({"a": ["b"]}), r"teachers\.a\.0: there|teachers\.a\.0: no such|test_resnet"),
        (lambda: without_teacher({"a": ["a"]}), r"teachers\.a: contains itself"),
        (lambda: without_teacher(named, teacher=[3]), r"teacher\.0: is no teacher"),
        (
            lambda: without_teacher(gone, axes={"teacher": ["a", "gone"]}),
            r"teachers\.gone\.checkpoint: no such",
        ),
        (lambda: without_teacher(bad, axes={"teacher": ["a", "bad"]}), r"teachers\.bad\.arch.*test_resnet"),
        (
            lambda: without_teacher(pair, axes={"teacher": ["a", "pair"]}),
            r"teachers\.gone\.checkpoint: no such",
        ),
        (
            lambda: without_teacher(
                named, axes={"teacher": ["both"], "teacher.batch_norm": ["eval", "batch"]}
            ),
            r"axes\.teacher\.batch_norm: is a field of one teacher",
        ),
        (lambda: without_teacher(named, method="seed"), r"axes\.teacher|teacher: has 2 teachers"),
        (lambda: without_teacher(named, axes={"lr": [1e-3]}, fixed={"teacher": "c"}), r"teacher: no such"),
    ]
    for make, words in wrong:
        with pytest.raises(UserError, match=words):
            validate(make())


def study(named: dict[str, Any], storage: Path, **changed: Any) -> Any:
    base = {**parse_yaml(SMALL, "small"), "method": "projector", "teachers": named}
    keys = ("method", "preset", "student", "data", "views", "optim", "probe", "epochs", "teachers")
    raw = {
        "name": "s",
        "base": {key: base[key] for key in keys if key in base},
        "design": "one_at_a_time",
        "factors": {"teacher": ["a", "b", "both"]},
        "replicates": 2,
    }
    return build_study({**raw, **changed}, storage)


def test_a_study_over_teachers(named: dict[str, Any], tmp_path: Path) -> None:
    from raykd.ablation.guard import check_study

    spec = study(named, tmp_path)
    assert list(spec.arms) == ["teacher=a", "teacher=b", "teacher=both"]
    checked, _ = check_study(spec)
    assert checked.arm_trial("teacher=b").teacher == without_teacher(named).trial({"teacher": "b"}, 0).teacher
    assert list(spec.teacher_rows()) == ["teacher-a", "teacher-b"]
    compare = {"x": {}, "y": {"teacher": "b", "lr": 1e-3}}
    compared = study(named, tmp_path, design="compare", factors={}, arms=compare)
    check_study(compared)
    assert compared.arm_trial("y").teacher == checked.arm_trial("teacher=b").teacher
    with pytest.raises(UserError, match=r"no such teacher"):
        check_study(study(named, tmp_path, factors={"teacher": ["a", "c"]}))


def test_the_best_trial_keeps_its_teacher(named: dict[str, Any]) -> None:
    spec = without_teacher(named)
    for name in ("b", "both"):
        trial = spec.trial({"teacher": name}, 3)
        again = build_sweep(config_of(spec, trial))
        assert again.trial({}, 3).signature() == trial.signature()
