"""`teacher: {head: fit}`: MoCo-v2's head on a frozen backbone; and methods that do without a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from tiny_trials import Log, assert_same_bits, final, run, tiny, workspace

from trainables.core.distributed import gather
from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.data.data_sets import open_data
from trainables.methods.base import Batch, Context
from trainables.methods.moco import MocoConfig
from trainables.methods.parts.losses import info_nce
from trainables.networks.heads import describe_head
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_method, step_flops
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import TeacherSpec, TrialSpec
from trainables.targets.series import augmented
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.teacher import What, load_teacher
from trainables.training.head_fit import HeadFit
from trainables.training.loop import prepare, train
from trainables.training.teacher_file import fits_head, teacher_path, teacher_trial, trainings
from trainables.training.workspace import Workspace

torch.set_num_threads(1)
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a backbone alone."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("bare") / "bare.pth"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return path


def taught(bare: Path, method: str = "retro", head: Any = None, **sections: Any) -> TrialSpec:
    teacher = {"arch": "test_resnet", "checkpoint": str(bare), **({"head": head} if head else {})}
    teacher |= sections.pop("teacher", {})
    return tiny(method, epochs=1, teacher=teacher, **sections)


def fitted(trial: TrialSpec) -> TrialSpec:
    training = teacher_trial(trial)
    assert training is not None and fits_head(training)
    return training


def test_a_head_is_fitted_once_and_the_backbone_stays(bare: Path, tmp_path: Path) -> None:
    trial = taught(bare, head={"epochs": 2}, teacher=PIXELS)
    place, heard = workspace(tmp_path), Log()
    prepare(trial, place, heard)
    assert heard.epochs == [1, 2]
    assert [report.metrics["head"] for report in heard.reports] == [1, 1]
    prepare(trial, place, heard)
    assert heard.epochs == [1, 2]  # cached
    assert trial.teacher is not None
    file = teacher_path(trial, place.teachers)
    teacher = load_teacher(trial.teacher, file)
    for name, value in torch.load(bare, weights_only=True).items():
        assert torch.equal(teacher.backbone.model.state_dict()[name], value), name
    dim = teacher.feature_dim
    assert teacher.head is not None and teacher.head_dim == 128
    assert [layer[0] for layer in describe_head(teacher.head)] == ["linear", "relu", "linear"]
    assert next(teacher.head.parameters()).shape == (dim, dim)
    # The file is a teacher by itself: it has the head, and knows its pixels.
    again = load_teacher(TeacherSpec(arch="test_resnet", checkpoint=file), file)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.embed(images), teacher.embed(images))
    assert again.backbone.inputs.normalisation == teacher.backbone.inputs.normalisation != IMAGENET
    log = Log()
    train(trial, log, place)
    assert log.epochs == [1]


def test_a_stopped_fit_goes_on_with_the_same_bits(bare: Path, tmp_path: Path) -> None:
    trial = taught(bare, head={"epochs": 2})
    name = fitted(trial).signature()
    whole, parts = workspace(tmp_path / "whole"), workspace(tmp_path / "parts")
    prepare(trial, whole)
    prepare(trial, parts, Log(stop=1))
    assert not teacher_path(trial, parts.teachers).exists()
    prepare(trial, parts)
    places = [Workspace(w.teachers / name, w.cache, w.teachers) for w in (whole, parts)]
    assert_same_bits(*map(final, places))
    assert not any(path.startswith("/method/student.") for path in final(places[0]))
    assert_same_bits(*(load_file(teacher_path(trial, place.teachers)) for place in (whole, parts)))


def test_what_defines_a_head_is_in_names_and_nothing_else(bare: Path, tmp_path: Path) -> None:
    plain, trial = taught(bare), taught(bare, head="fit")
    assert plain.signature() != trial.signature() and teacher_trial(plain) is None
    other = tmp_path / "other.pth"
    torch.save({k: v + 1 for k, v in torch.load(bare, weights_only=True).items()}, other)
    changed = [
        taught(bare, head={"epochs": 3}),
        taught(bare, head={"seed": 1}),
        taught(bare, head={"config": {"head_dim": 64}}),
        taught(bare, head={"views": {"strength": 0.7}}),
        taught(bare, head="fit", teacher=PIXELS),
        taught(bare, head="fit", data={"image_size": 24}),
        taught(other, head="fit"),
    ]
    names = {fitted(one).signature() for one in [trial, *changed]}
    assert len(names) == 8
    alike = [
        taught(bare, head={"epochs": 20}),
        taught(bare, head="fit", seed=4),
        taught(bare, head="fit", optim={"lr": 1e-4}),
        taught(bare, method="seed", head="fit", views={"strength": 1.0}),
    ]
    assert {fitted(one).signature() for one in alike} == {fitted(trial).signature()}
    assert fitted(trial).config["queue_size"] == 512  # the trial's preset, which moco has
    again = TrialSpec.model_validate(trial.model_dump(mode="json"))
    assert again == trial and again.signature() == trial.signature()


def test_only_the_head_learns_by_the_formula(bare: Path) -> None:
    spec = TeacherSpec(arch="test_resnet", checkpoint=bare)
    teacher = load_teacher(spec, bare)
    before = {name: value.clone() for name, value in teacher.backbone.state_dict().items()}
    context = Context(64, 8, 0, 32, 0)
    method = HeadFit(MocoConfig(queue_size=16, momentum=0.5), teacher, context).train()
    views = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    losses = method(Batch(views, torch.full((8,), -1), torch.arange(8)))
    z1, z2 = (teacher.features(view) for view in views)
    q, k = unit(method.head(z1)), unit(method.head(z2))  # the copy begins at the head
    torch.testing.assert_close(losses.total, info_nce(q, gather(k), method.queue.rows, 0.2))
    losses.total.backward()
    assert {name.partition(".")[0] for name, p in method.named_parameters() if p.grad is not None} == {"head"}
    torch.optim.SGD(method.head.parameters(), 0.1).step()
    method.after_step(1.0)
    assert torch.equal(method.queue.rows[:8], k.detach())
    for name, value in before.items():
        assert torch.equal(method.student.state_dict()[name], value), name


def test_a_head_over_a_trained_teacher_without_one(tmp_path: Path) -> None:
    train = {"method": "supervised", "preset": "digits", "epochs": 2}
    trial = tiny("retro", epochs=1, teacher={"arch": "test_resnet", "train": train, "head": {"epochs": 3}})
    backbone, head = trainings(trial)
    assert backbone.method == "supervised" and fits_head(head) and not fits_head(backbone)
    assert teacher_trial(head) == backbone
    place, heard = workspace(tmp_path), Log(stop=1)
    prepare(trial, place, heard)
    assert heard.epochs == [1] and not list(place.teachers.glob("*.safetensors"))
    heard = Log()
    prepare(trial, place, heard)
    assert [(r.epoch, r.metrics["head"]) for r in heard.reports][-3:] == [(3, 1), (4, 1), (5, 1)]
    facts = read_checkpoint(teacher_path(trial, place.teachers), "teacher").facts
    assert facts.head and facts.classes == 10  # the classifier is kept
    # Two passes forward, where MoCo itself has two and one backward, which costs two.
    whole = tiny("moco", student={"arch": "test_resnet"})
    assert step_flops(head) == pytest.approx(step_flops(whole) / 2, rel=0.1)
    assert isinstance(bare_method(head, TrialChecker().context), HeadFit)


@pytest.mark.parametrize("name", ["seed", "disco", "rekd_style"])
def test_methods_of_embeddings_take_features_for_want_of_a_head(
    name: str, bare: Path, tmp_path: Path
) -> None:
    trial = taught(bare, method=name)
    checker = TrialChecker()
    checker.check(trial)
    said = " ".join(checker.remarks(trial).values())
    assert f"method {name}: bare.pth holds no projection head" in said and "head: fit" in said
    assert "projection head" not in " ".join(checker.remarks(taught(bare, name, head="fit")).values())
    assert run(trial, workspace(tmp_path)).epochs == [1]


def test_embeddings_without_a_head_are_shared_as_the_features_that_they_are(
    bare: Path, tmp_path: Path
) -> None:
    trial = taught(bare, method="seed")
    assert trial.teacher is not None
    teacher = load_teacher(trial.teacher, bare)
    data = open_data(trial.data, tmp_path)
    device = torch.device("cpu")
    whats: tuple[What, ...] = ("embed", "features")
    asked = [augmented(trial, data, teacher, what, 0, device, False, False, 1) for what in whats]
    assert asked[0].key == asked[1].key and asked[0].width == asked[1].width == teacher.feature_dim


def test_retro_without_a_head_names_both_ways(bare: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint with its head.*or `teacher: \{head: fit\}`"):
        TrialChecker().check(taught(bare))
    train = {"method": "supervised", "preset": "digits", "epochs": 1}
    with pytest.raises(UserError, match=r"teacher.train.method: trains no proj.*`teacher: \{head: fit\}`"):
        TrialChecker().check(tiny("retro", teacher={"arch": "test_resnet", "train": train}))
    TrialChecker().check(taught(bare, head="fit"))


def test_the_default_settings_are_mocos_and_a_preset_that_fits_is_named(bare: Path) -> None:
    trial = taught(bare, head={"preset": "paper"})
    training = fitted(trial)
    assert (training.config["queue_size"], training.optim.lr, training.epochs) == (65536, 0.03, 20)
    with pytest.raises(UserError, match=r"teacher.head.config.queue_size: .*`head: \{preset: digits\}`"):
        TrialChecker().check(trial)
