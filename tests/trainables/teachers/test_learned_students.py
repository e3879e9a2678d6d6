"""Students that have learned before: the files they start from, what is refused, how trials are named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tiny_trials import Log, assert_same_bits, final, run, tiny, workspace
from torch import nn

from trainables import references
from trainables.core.errors import UserError
from trainables.data.data_sets import open_data
from trainables.evaluation.evaluate import Examiner
from trainables.networks.backbones import build_backbone, noise
from trainables.planning.check import TrialChecker
from trainables.spec.normalisation import IMAGENET, Normalisation
from trainables.spec.trial import ModelSpec, StudentSpec, TrialSpec
from trainables.teachers.student import build_student
from trainables.teachers.teacher import load_teacher
from trainables.training.flat_names import flatten
from trainables.training.loop import prepare, train
from trainables.training.resolve import resolve
from trainables.training.run import BEST
from trainables.training.teacher_file import start_path, teacher_path, trainings
from trainables.views.augmented import evaluation_view

torch.set_num_threads(1)
ARCH = "test_efficientnet"
NARROW: dict[str, Any] = {"arch": ARCH, "options": {"channel_multiplier": 0.5}}
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IDLE = "num_batches_tracked"


def network(seed: int = 3, **more: Any) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(ARCH, channel_multiplier=0.5, **more)
    return model


def from_file(path: Path, **more: Any) -> TrialSpec:
    return tiny(student={**NARROW, "checkpoint": str(path), **more})


def assert_weights(student: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, value in student.state_dict().items():
        assert name.endswith(IDLE) or torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """timm's network with a classifier."""
    path = tmp_path_factory.mktemp("file") / "timms.pth"
    torch.save(network(num_classes=7).state_dict(), path)
    return path


def test_a_student_starts_from_a_file_whose_classifier_is_left_aside_and_said(file: Path) -> None:
    trial = from_file(file)
    assert_weights(build_student(trial.student, 5, file).model, torch.load(file))
    (said,) = [r for r in TrialChecker().remarks(trial).values() if "starts from" in r]
    assert str(file) in said and "left aside: classifier (2 tensors)" in said


def test_the_method_trains_on_from_the_file_and_its_momentum_copy_too(file: Path, tmp_path: Path) -> None:
    """A step so small that no weight moves: what is saved is what was read."""
    trial = tiny(
        student={**NARROW, "checkpoint": str(file)}, epochs=1, optim={"lr": 1e-30, "weight_decay": 0}
    )
    place = workspace(tmp_path)
    run(trial, place)
    wanted = torch.load(file)
    state = final(place)
    for prefix in ("/method/student.model.", "/method/mean.parts.student.model."):
        weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        named = [name for name in weights if "running" not in name and IDLE not in name]
        assert len(named) > 20
        for name in named:
            torch.testing.assert_close(weights[name], wanted[name], rtol=0, atol=1e-20)


def test_files_of_raykd_s_own_are_a_start(tmp_path: Path, file: Path) -> None:
    """A trial's best student, and a teacher that raykd has trained, whose head is left aside."""
    place = workspace(tmp_path)
    trial = tiny("retro", student={**NARROW, "checkpoint": str(file)}, epochs=1)
    run(trial, place)
    again = build_student(from_file(place.folder / BEST).student, 0, place.folder / BEST)
    assert_weights(again.model, load_file(place.folder / BEST))
    (taught,) = place.teachers.glob("*.safetensors")
    student = tiny(student={"arch": "test_resnet", "checkpoint": str(taught)}).student
    saved = {k.removeprefix("backbone."): v for k, v in load_file(taught).items()}
    assert_weights(build_student(student, 0, taught).model, saved)


def test_the_seed_draws_heads_and_not_the_student(file: Path) -> None:
    student = from_file(file).student
    assert_same_bits(
        build_student(student, 0, file).state_dict(), build_student(student, 1, file).state_dict()
    )
    before = torch.random.get_rng_state()
    build_student(student, 1, file)
    assert torch.equal(before, torch.random.get_rng_state())


# --- names --------------------------------------------------------------------------------------------------


def test_a_trial_s_name_has_the_content_of_the_file_and_not_its_path(file: Path, tmp_path: Path) -> None:
    plain, trial = tiny(student=NARROW), from_file(file)
    copy = tmp_path / "copy.pth"
    copy.write_bytes(file.read_bytes())
    other = tmp_path / "other.pth"
    torch.save(network(4).state_dict(), other)
    assert plain.signature() != trial.signature() == from_file(copy).signature()
    assert from_file(other).signature() != trial.signature()
    assert "checkpoint" not in plain.model_dump()["student"] and plain.student.normalisation == IMAGENET
    assert TrialSpec.model_validate(trial.model_dump(mode="json")).signature() == trial.signature()
    assert flatten(trial)["student.checkpoint"] == str(file)
    os.utime(copy, (1, 1))
    assert from_file(copy).signature() == trial.signature()


# --- pixels -------------------------------------------------------------------------------------------------


def test_a_student_sees_what_it_was_trained_on_and_so_does_all_that_is_made_of_it(tmp_path: Path) -> None:
    """`mean` and `std` from the file: in the student's features, in its name, and in what a trial saves."""
    path, model = tmp_path / "half.safetensors", network(num_classes=0).eval()
    about = {"arch": ARCH, "mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"}
    save_file(model.state_dict(), path, about)
    trial = from_file(path)
    assert trial.student.normalisation == HALF
    assert from_file(path, mean=IMAGENET.mean, std=IMAGENET.std).signature() != trial.signature()
    pixels = noise(16)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    student = build_student(trial.student, 0, path).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            student((pixels - mean) / std), model(pixels * 2 - 1), rtol=1e-4, atol=1e-5
        )
    place = workspace(tmp_path)
    run(trial.model_copy(update={"epochs": 1}), place)
    assert from_file(place.folder / BEST).student.normalisation == HALF


def test_the_row_before_training_is_the_student_as_it_came(file: Path, tmp_path: Path) -> None:
    trial, place, heard = from_file(file), workspace(tmp_path), Log()
    references.untrained(trial, heard, place)
    data = open_data(trial.data, place.cache)
    backbone = build_backbone(ModelSpec(**NARROW), 0)
    state = {k: v for k, v in torch.load(file).items() if not k.startswith("classifier")}
    backbone.model.load_state_dict(state)
    assert trial.student.inputs.crop_share is not None, "timm's pretrained_cfg says one"
    view = evaluation_view(trial.data, trial.student.inputs)
    want = Examiner(trial.probe, data, view, torch.device("cpu")).evaluate(backbone.eval())
    assert heard.reports[0].metrics == want


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"checkpoint": "HERE/none.pth"}, "student.checkpoint", "no such file"),
        ({"arch": "test_resnet", "options": {}}, "student.arch", "only 0 of 75 weights"),
        ({"options": {}}, "student.arch", "another shape"),
    ],
)
def test_a_file_that_does_not_fit_to_the_last_weight(
    file: Path, tmp_path: Path, change: dict[str, Any], field: str, word: str
) -> None:
    given = {**NARROW, "checkpoint": str(file), **change}
    given["checkpoint"] = given["checkpoint"].replace("HERE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        TrialChecker().check(tiny(student=given))
    assert caught.value.field == field and word in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pretrained": True}, "student"),  # and a checkpoint
        ({"checkpoint": None, "mean": 0.5, "std": 0.5}, "student.mean"),
        ({"mean": 0.5}, "student.std"),
        (
            {"checkpoint": None, "arch": "raykd/resnet9", "options": {}, "pretrained": True},
            "student.pretrained",
        ),
        ({"pretrained": "perhaps"}, "student.pretrained"),
    ],
)
def test_weights_that_are_said_twice_or_half(file: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError) as caught:
        from_file(file, **change)
    assert caught.value.field == field, caught.value


def test_a_stem_that_no_shape_tells(file: Path, tmp_path: Path) -> None:
    """Its stride alone differs: a foreign file gets a remark, one of raykd's own says what it was."""
    small = {"arch": ARCH, "options": {"channel_multiplier": 0.5, "stem": "small"}}
    trial = tiny(student={**small, "checkpoint": str(file)})
    TrialChecker().check(trial)
    assert any("options.stem" in remark for remark in TrialChecker().remarks(trial).values())
    place = workspace(tmp_path)
    run(tiny(student=small, epochs=1), place)
    path = str(place.folder / BEST)
    own = tiny(student={**small, "checkpoint": path})
    assert not any("options.stem" in remark for remark in TrialChecker().remarks(own).values())
    with pytest.raises(UserError, match="stem: small") as caught:
        TrialChecker().check(tiny(student={**NARROW, "checkpoint": path}))
    assert caught.value.field == "student.options.stem"


def test_a_host_would_rescale_what_the_student_has_learned(file: Path) -> None:
    checker = TrialChecker()
    with pytest.raises(UserError, match="would be lost") as caught:
        checker.check(tiny("sacl", student={**NARROW, "checkpoint": str(file)}))
    assert caught.value.field == "config.host_width"
    checker.check(tiny("sacl", student={**NARROW, "checkpoint": str(file)}, config={"host_width": 1}))


def test_weights_by_name_are_a_file_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth"
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    import torchvision

    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), path)
    student = tiny(student={"arch": "torchvision/mobilenet_v3_small", "pretrained": True}).student
    assert isinstance(student, StudentSpec)
    assert (student.checkpoint, student.pretrained) == (path, False)
    torch.testing.assert_close(
        build_student(student, 0, path).model.get_parameter("features.0.0.weight"),
        torch.load(path)["features.0.0.weight"],
    )


# --- trained before -----------------------------------------------------------------------------------------

FIRST, THEN = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
BEFORE = {"method": "supervised", "preset": "digits", "epochs": 1, "data": {"classes": FIRST}}


def transferred(**more: Any) -> TrialSpec:
    """Both learn the first classes, the teacher then the others, and the student from the teacher."""
    train = {"method": "supervised", "preset": "digits", "epochs": 1, "start": {"train": BEFORE}}
    usual = {
        "student": {**NARROW, "train": BEFORE},
        "teacher": {"arch": "test_resnet", "train": train},
        "data": {"name": "digits", "classes": THEN},
        "epochs": 1,
    }
    return tiny("rrkd", **{**usual, **more})


def test_networks_are_trained_on_some_classes_and_transferred_to_others(tmp_path: Path) -> None:
    trial = transferred()
    needed = trainings(trial)
    assert [t.student.arch for t in needed] == [ARCH, "test_resnet", "test_resnet"]
    assert [list(t.data.classes or ()) for t in needed] == [FIRST, FIRST, THEN]
    TrialChecker().check(trial)
    place, heard = workspace(tmp_path), Log()
    prepare(trial, place, heard)
    assert heard.epochs == [1, 2, 3]
    files = [place.teachers / f"{training.signature()}.safetensors" for training in needed]
    student = build_student(trial.student, 0, start_path(trial.student, place.teachers))
    saved = [{k: v for k, v in load_file(one).items() if k.startswith("backbone.")} for one in files]
    assert_weights(student.model, {k.removeprefix("backbone."): v for k, v in saved[0].items()})
    taught = load_file(files[2])
    assert len(taught["classifier.weight"]) == 5
    first = {k: v for k, v in saved[1].items() if "running" not in k and not k.endswith(IDLE)}
    drawn = build_backbone(ModelSpec(arch="test_resnet"), 0).model.state_dict()
    apart = [sum(float((taught[k] - w[k]).norm()) for k in first) for w in (first, rooted(drawn))]
    assert apart[0] < apart[1], "the teacher's second training starts from its first"
    train(trial, heard, place)
    assert (place.folder / BEST).exists()


def rooted(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"backbone.{name}": value for name, value in weights.items()}


def test_a_training_before_is_known_by_its_settings(tmp_path: Path) -> None:
    trial = transferred()
    assert TrialSpec.model_validate(trial.model_dump(mode="json")) == trial
    again = trial.model_dump(mode="json")
    assert resolve({k: v for k, v in again.items() if k != "plugins"}).signature() == trial.signature()
    longer = transferred(student={**NARROW, "train": {**BEFORE, "epochs": 2}})
    assert longer.signature() != trial.signature()
    moved = transferred(data={"name": "digits", "classes": THEN, "path": str(tmp_path)})
    assert moved.signature() == trial.signature()
    from_random = transferred(teacher={"arch": "test_resnet", "train": {"method": "supervised", "epochs": 1}})
    assert from_random.teacher is not None and trial.teacher is not None
    assert from_random.teacher.identity(trial.data) != trial.teacher.identity(trial.data)


def test_pixels_are_those_of_the_first_training_in_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file(
        network(num_classes=0).state_dict(), path, {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"}
    )
    student = {**NARROW, "train": {**BEFORE, "student": {"checkpoint": str(path)}}}
    train = {"method": "supervised", "preset": "digits", "epochs": 1, "start": {"checkpoint": str(path)}}
    trial = transferred(student=student, teacher={**NARROW, "train": train})
    assert trial.student.normalisation == HALF
    again = resolve({k: v for k, v in trial.model_dump(mode="json").items() if k != "plugins"})
    assert again.signature() == trial.signature() and again.student.normalisation == HALF
    place = workspace(tmp_path)
    prepare(trial, place)
    assert trial.teacher is not None
    assert (
        load_teacher(trial.teacher, teacher_path(trial, place.teachers)).backbone.inputs.normalisation == HALF
    )
    start = start_path(trial.student, place.teachers)
    assert build_student(trial.student, 0, start).inputs.normalisation == HALF
    with pytest.raises(UserError, match="fed as in its training") as caught:
        transferred(student={**student, "mean": [0.4, 0.4, 0.4], "std": [0.5, 0.5, 0.5]})
    assert caught.value.field == "student.mean"


def test_a_student_may_learn_from_a_teacher_before(tmp_path: Path) -> None:
    """SSL-Small's start: an epoch of SEED."""
    moco = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}
    seed = {"method": "seed", "preset": "digits", "epochs": 1, "teacher": moco}
    trial = tiny("ssl_small", student={**NARROW, "train": seed}, epochs=1)
    assert [t.method for t in trainings(trial)] == ["moco", "seed"]
    TrialChecker().check(trial)
    heard = run(trial, workspace(tmp_path))
    assert heard.epochs == [1]


@pytest.mark.parametrize(
    ("train", "field"),
    [
        ({**BEFORE, "methd": "moco"}, "student.train.methd"),
        ({**BEFORE, "epochs": 0}, "student.train.epochs"),
        ({**BEFORE, "method": "rrkd"}, "student.train.teacher"),
        ({**BEFORE, "data": {"classes": [0]}}, "student.train.data.classes"),
        ({**BEFORE, "student": {"arch": "test_resnet"}}, "student.train.student.arch"),
        ([1], "student.train"),
    ],
)
def test_a_training_before_that_cannot_be(train: Any, field: str) -> None:
    with pytest.raises(UserError) as caught:
        transferred(student={**NARROW, "train": train})
    assert caught.value.field == field, caught.value


def test_a_teacher_s_start_that_cannot_be(file: Path) -> None:
    def started(**start: Any) -> TrialSpec:
        train = {"method": "supervised", "preset": "digits", "epochs": 1, "start": start}
        return transferred(teacher={"arch": "test_resnet", "train": train})

    for start, field in (
        ({"chekpoint": "x"}, "teacher.train.start.chekpoint"),
        ({"checkpoint": str(file), "train": BEFORE}, "teacher.train.start"),
    ):
        with pytest.raises(UserError) as caught:
            started(**start)
        assert caught.value.field == field, caught.value
    with pytest.raises(UserError, match="weights of test_resnet"):
        TrialChecker().check(started(checkpoint=str(file)))
