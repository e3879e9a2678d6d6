"""A teacher sees pixels normalised as in its training: by field, file, origin or timm, in that order."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_methods import SIDE, STUDENT, context, make_method, training_images
from timm.models import save_for_hf
from torch import Tensor, nn

from tests.helpers.flat import unflatten
from trainables import references
from trainables.core.errors import UserError
from trainables.data.data_sets import open_data
from trainables.evaluation.evaluate import Examiner
from trainables.methods.parts.teacher_classifier import TeacherClassifier
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import projection_head
from trainables.spec.inputs import Inputs
from trainables.spec.normalisation import CIFAR10, CIFAR100, IMAGENET, Normalisation
from trainables.spec.trial import TeacherSpec, TrialSpec
from trainables.teachers.feeding import feeding, remark
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.flat_names import flatten
from trainables.training.resolve import resolve
from trainables.training.teacher_file import teacher_path, teacher_trial
from trainables.training.workspace import EpochReport, Workspace
from trainables.views.augmented import plain

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPTIONS = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 3}
VIT = "vit_tiny_patch16_224"  # trained by timm on .5 and .5
triples = st.tuples(*[st.floats(0.01, 1)] * 3)
State = dict[str, Tensor]


def vit(classes: int = 10) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return timm.create_model(VIT, num_classes=classes, **OPTIONS).eval()


def backbone_state() -> State:
    return {name: value for name, value in vit().state_dict().items() if not name.startswith("head.")}


def taught(checkpoint: Path, arch: str = VIT, options: dict[str, Any] = OPTIONS, **fields: Any) -> TrialSpec:
    """A trial of a teacher from a file, as a user writes it."""
    return resolve(
        {
            "method": "compress",
            "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.25}},
            "teacher": {"arch": arch, "options": options, "checkpoint": str(checkpoint), **fields},
            "epochs": 1,
        }
    )


def fed(trial: TrialSpec) -> Normalisation:
    assert trial.teacher is not None
    return trial.teacher.normalisation


# --- what is fed --------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(mean=triples, std=triples, seed=st.integers(0, 99))
def test_a_fed_network_computes_what_it_does_on_pixels_of_its_own(
    mean: tuple[float, float, float], std: tuple[float, float, float], seed: int
) -> None:
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    view = (pixels - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)
    own = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    plain_one, other = (build_backbone(STUDENT, 0).eval() for _ in range(2))
    other.feed(Inputs(Normalisation(mean, std)))
    before = view.clone()
    close = {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(other(view), plain_one(own), **close)
        torch.testing.assert_close(other.map(view), plain_one.map(own), **close)
        for one, two in zip(other.with_maps(view)[1], plain_one.with_maps(own)[1], strict=True):
            torch.testing.assert_close(one, two, **close)
    assert torch.equal(view, before), "the student looks at the same view"
    assert other.state_dict().keys() == plain_one.state_dict().keys(), "no weight of the network"


def test_imagenet_s_values_change_no_bit() -> None:
    backbone = build_backbone(STUDENT, 0).eval()
    view = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = backbone(view)
        backbone.feed(Inputs(Normalisation((0.48500001, 0.456, 0.406), IMAGENET.std)))  # as a file may round
        assert torch.equal(backbone(view), before)
    assert not list(backbone.buffers(recurse=False))


def test_all_that_a_teacher_says_comes_from_its_own_pixels() -> None:
    backbones = [build_backbone(STUDENT, 4).eval() for _ in range(2)]
    backbones[0].feed(Inputs(HALF))
    head = projection_head(backbones[0].feature_dim, 16, 8).eval()
    classifier = nn.Linear(backbones[0].feature_dim, 4)
    teacher, bare = (Teacher(one, head, classifier=classifier) for one in backbones)
    pixels = torch.rand(2, 3, SIDE, SIDE)
    view = (pixels - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)
    own = pixels * 2 - 1
    for name in ("features", "embed", "logits"):
        torch.testing.assert_close(getattr(teacher, name)(view), getattr(bare, name)(own))
    torch.testing.assert_close(teacher.features_and_maps(view)[1], bare.features_and_maps(own)[1])


def test_a_fitted_classifier_and_the_best_anchors_are_of_these_pixels() -> None:
    images = training_images(context())
    fits = {}
    for name, trained in (("imagenet", IMAGENET), ("half", HALF)):
        backbone = build_backbone(STUDENT, 4).eval()
        backbone.feed(Inputs(trained))
        teacher = Teacher(backbone, None, sha256="f" * 64)  # one file, fed in two ways
        said = TeacherClassifier(teacher, 4, "fitted")
        said.begin(teacher, images)
        fits[name] = said.weight
        method = make_method("rrkd", teacher=teacher, anchors="best_per_class")
        anchors = images.plain(method.anchor_ids)
        torch.testing.assert_close(method.teacher_anchors, teacher.features(anchors))
    assert not torch.allclose(fits["imagenet"], fits["half"]), "remembered for the file alone"


def test_a_teacher_s_row_and_features_are_those_of_timm_s_own_network(tmp_path: Path) -> None:
    """From the file to the reference row: nowhere another mean than the one the network was trained on."""
    model = vit()
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    trial = taught(tmp_path / "vit.pth")
    assert fed(trial) == HALF and trial.teacher is not None
    place = Workspace(tmp_path / "trial", tmp_path / "cache", tmp_path / "teachers")
    data = open_data(trial.data, place.cache)
    ids = data.train_ids[:32]
    pixels = data.train.take(ids).float() / 255
    with torch.no_grad():
        want = model.forward_head(model.forward_features(pixels * 2 - 1), pre_logits=True)  # type: ignore[operator]
    teacher = load_teacher(trial.teacher, teacher_path(trial, place.teachers))
    torch.testing.assert_close(teacher.features(plain(data.train.take(ids), 16)), want, rtol=1e-4, atol=1e-5)

    reports: list[EpochReport] = []
    references.teacher(trial, lambda report: bool(reports.append(report)), place)
    exam = Examiner(trial.probe, data, 16, torch.device("cpu"))

    def encode(view: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
        own = (view * std + mean) * 2 - 1
        features: Tensor = model.forward_head(model.forward_features(own), pre_logits=True)  # type: ignore[operator]
        return features

    assert reports[0].metrics["score"] == pytest.approx(exam.evaluate(encode)["score"], abs=0.3)


# --- who says it --------------------------------------------------------------------------------------------


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def arguments(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(model=VIT, **values)


FILES: dict[str, tuple[str, Any, Normalisation]] = {
    # name -> the file's own name, what is in it, how it is fed
    "timm's state dict": ("teacher.pth", lambda: vit().state_dict(), HALF),
    "timm's, in safetensors": ("teacher.safetensors", lambda: vit().state_dict(), HALF),
    "timm's, without its classifier": ("teacher.pth", backbone_state, HALF),
    "timm's, under `model`": ("teacher.pth", lambda: {"model": vit().state_dict()}, HALF),
    "timm's train.py": (
        "model_best.pth.tar",
        lambda: {"state_dict": vit().state_dict(), "args": arguments(mean=None, std=None)},
        HALF,
    ),
    "timm's train.py, told others": (
        "model_best.pth.tar",
        lambda: {
            "state_dict": vit().state_dict(),
            "args": arguments(mean=[0.4, 0.4, 0.4], std=[0.3, 0.3, 0.3]),
        },
        Normalisation((0.4,) * 3, (0.3,) * 3),
    ),
    "a script that keeps its options as text": (
        "last.pth",
        lambda: {"model": vit().state_dict(), "opt": arguments(mean="(.1, .2, .3)", std="(.4, .5, .6)")},
        Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    ),
    "values that no pixel has are none": (
        "last.pth",
        lambda: {"state_dict": vit().state_dict(), "args": arguments(mean=[300.0] * 3, std=[58.4] * 3)},
        HALF,
    ),
    "pixels of 0 to 255": (
        "last.pth",
        lambda: {"state_dict": vit().state_dict(), "args": arguments(mean=[102.0] * 3, std=[1.0] * 3)},
        Normalisation((0.4,) * 3, (1 / 255,) * 3),
    ),
    "DINO's backbone, by name": ("dino_vittiny16_pretrain.pth", backbone_state, IMAGENET),
    "DeiT's, by name": (
        "deit_tiny_patch16_224-a1311bcf.pth",
        lambda: {"model": vit().state_dict()},
        IMAGENET,
    ),
    "timm's tag, by name": ("vit_tiny_patch16_224.augreg_in21k.pth", backbone_state, HALF),
    "MoCo v3's": (
        "vit.pth.tar",
        lambda: {"state_dict": {f"module.base_encoder.{k}": v for k, v in backbone_state().items()}},
        IMAGENET,
    ),
    "a trial's best student": (
        "best.safetensors",
        None,  # written with its metadata below
        IMAGENET,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_by_file_origin_or_timm(name: str, tmp_path: Path) -> None:
    file, content, want = FILES[name]
    path = tmp_path / file
    if content is None:
        save_file(backbone_state(), path, {"epoch": "3", "score": "81.0", "trial": "0123abcd"})
    else:
        written(path, content())
    trial = taught(path)
    assert fed(trial) == want
    told = remark(trial.teacher) if trial.teacher is not None else ""
    assert ("mean" in told) == (want != IMAGENET), "what is not usual is said"


@pytest.mark.parametrize("arch, want", [("vit_tiny_patch16_224", HALF), ("test_efficientnet", IMAGENET)])
def test_an_architecture_s_pretrained_cfg(arch: str, want: Normalisation, tmp_path: Path) -> None:
    options = OPTIONS if arch == VIT else {"channel_multiplier": 0.25}
    model = timm.create_model(arch, num_classes=10, **options)
    assert (want.mean, want.std) == (timm.get_pretrained_cfg(arch).mean, timm.get_pretrained_cfg(arch).std)
    trial = taught(written(tmp_path / "t.pth", model.state_dict()), arch, options)
    assert fed(trial) == want


def test_a_tag_in_the_architecture_decides(tmp_path: Path) -> None:
    path = written(tmp_path / "t.pth", backbone_state())
    said = {
        tag: feeding(f"vit_small_patch16_224.{tag}", read_checkpoint(path, "f"))
        for tag in ("dino", "augreg_in1k")
    }
    assert said["dino"].normalisation == IMAGENET and said["augreg_in1k"].normalisation == HALF
    assert not said["dino"].remark
    untold = feeding("vit_small_patch16_224", read_checkpoint(path, "f"))
    assert untold.normalisation == HALF and "dino: ImageNet's" in untold.remark, "others are named"


def test_a_folder_of_the_hub_says_it(tmp_path: Path) -> None:
    model: Any = vit()
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_for_hf(model, str(tmp_path / "hub"), model_args=OPTIONS, safe_serialization=True)
    assert fed(taught(tmp_path / "hub" / "model.safetensors")) == Normalisation(
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    # The client's cache has the weights alone, in folders named after them.
    cached = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k" / "snapshots" / "0a1b"
    read = read_checkpoint(written(cached / "model.safetensors", model.state_dict()), "f")
    assert "augreg_in21k" in feeding(VIT, read).by
    for name, content in (
        ("preprocessor_config.json", {"image_mean": [0.6] * 3, "image_std": [0.7] * 3}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.6] * 3, "std": [0.7] * 3}}),
        ("config.json", {"architecture": VIT, "mean": [0.6] * 3, "std": [0.7] * 3}),  # timm's of old
    ):
        folder = tmp_path / name.partition(".")[0]
        path = written(folder / "pytorch_model.bin", vit().state_dict())
        (folder / name).write_text(json.dumps(content))
        assert fed(taught(path)) == Normalisation((0.6,) * 3, (0.7,) * 3), name
        for words, want in (({"do_normalize": False}, ((0.0,) * 3, (1.0,) * 3)),
                            ({"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "do_rescale": False},
                             ((0.0,) * 3, (1 / 255,) * 3))) if "image_mean" in content else ():  # fmt: skip
            (folder / name).write_text(json.dumps(words))
            path.touch()
            assert fed(taught(path)) == want
        (folder / name).write_text("[1, 2")  # a broken one says nothing of pixels
        path.touch()
        if name == "config.json":  # timm's own says what the network is, too
            with pytest.raises(UserError, match=r"config\.json cannot be read"):
                read_checkpoint(path, "f")
        else:
            assert fed(taught(path)) == HALF


@pytest.mark.parametrize("classes, want", [(10, CIFAR10), (100, CIFAR100), (7, IMAGENET)])
def test_solo_learn_s_small_stem_is_for_cifar(classes: int, want: Normalisation, tmp_path: Path) -> None:
    state = {"backbone.conv1.weight": torch.randn(64, 3, 3, 3), "backbone.bn1.weight": torch.ones(64)}
    state |= {"projector.0.weight": torch.randn(12, 24), "projector.0.bias": torch.randn(12)}
    state |= {"classifier.weight": torch.randn(classes, 24), "classifier.bias": torch.randn(classes)}
    path = written(tmp_path / "simclr.ckpt", {"state_dict": state})
    found = feeding("resnet18", read_checkpoint(path, "f"))
    assert found.normalisation == want and found.sure == (want != IMAGENET)
    assert want != IMAGENET or "CIFAR's own" in remark(TeacherSpec(arch="resnet18", checkpoint=path))


def test_one_of_raykd_s_own_needs_no_word() -> None:
    trial = resolve(
        {
            "method": "compress",
            "student": {"arch": "test_efficientnet"},
            "teacher": {"arch": VIT, "options": OPTIONS, "train": {"method": "moco", "epochs": 1}},
            "data": {"image_size": 16},
            "epochs": 1,
        }
    )
    assert fed(trial) == IMAGENET and teacher_trial(trial) is not None and trial.teacher is not None
    assert remark(trial.teacher) == ""


# --- field and identity -------------------------------------------------------------------------------------


def test_only_what_differs_from_imagenet_is_in_the_identity(tmp_path: Path) -> None:
    path = written(tmp_path / "t.pth", vit().state_dict())
    own, usual = taught(path), taught(path, mean=IMAGENET.mean, std=IMAGENET.std)
    assert usual.teacher is not None
    without = usual.model_copy(
        update={"teacher": usual.teacher.model_copy(update={"mean": None, "std": None})}
    )
    assert usual.signature() == without.signature() != own.signature()
    assert own.arm() != usual.arm() == without.arm()
    assert taught(path, mean=0.5, std=[0.5]).signature() == own.signature(), "one value for all channels"
    grey = taught(path, mean=0.1307, std=0.3081)  # MNIST's
    assert fed(grey) == Normalisation((0.1307,) * 3, (0.3081,) * 3)
    assert len({own.signature(), usual.signature(), grey.signature()}) == 3
    for trial in (own, usual, grey):
        assert resolve(trial.model_dump(mode="json")) == trial
        assert resolve(unflatten(flatten(trial))).signature() == trial.signature()


@pytest.mark.parametrize(
    "fields, where, words",
    [
        ({"mean": [0.5, 0.5], "std": 0.5}, "teacher.mean", "three channels"),
        ({"mean": [0.5] * 4, "std": 0.5}, "teacher.mean", "three channels"),
        ({"mean": "grey", "std": 0.5}, "teacher.mean", "three channels"),
        ({"mean": [0.5, True, 0.5], "std": 0.5}, "teacher.mean", "three channels"),
        ({"mean": {"r": 1}, "std": 0.5}, "teacher.mean", "three channels"),
        ({"mean": [-0.1, 0.5, 0.5], "std": 0.5}, "teacher.mean", "cannot be the mean"),
        ({"mean": [float("nan"), 0.5, 0.5], "std": 0.5}, "teacher.mean", "cannot be the mean"),
        ({"mean": [123.675, 116.28, 103.53], "std": 0.5}, "teacher.mean", "0.485, 0.456, 0.406"),
        ({"mean": 0.5, "std": [58.395, 57.12, 57.375]}, "teacher.std", "0.229, 0.224, 0.225"),
        ({"mean": 0.5, "std": 0}, "teacher.std", "cannot be the deviation"),
        ({"mean": 0.5, "std": 1.5}, "teacher.std", "cannot be the deviation"),
        ({"mean": 0.5}, "teacher.std", "missing beside `mean`"),
        ({"std": 0.5}, "teacher.mean", "missing beside `std`"),
        ({"means": 0.5}, "teacher.means", "Did you mean 'mean'"),
    ],
)
def test_what_no_pixels_have_is_refused_by_name(
    fields: dict[str, Any], where: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        taught(tmp_path / "nowhere.pth", **fields)
    assert caught.value.field == where and words in str(caught.value)


def test_a_teacher_that_raykd_trains_takes_no_such_field() -> None:
    teacher = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}, "mean": 0.5, "std": 0.5}
    raw = {"method": "compress", "student": {"arch": "test_efficientnet"}, "teacher": teacher, "epochs": 1}
    with pytest.raises(UserError, match=r"teacher\.mean: goes with `checkpoint`"):
        resolve(raw)


def test_a_file_that_is_not_there_yet_is_somebody_else_s_error(tmp_path: Path) -> None:
    trial = taught(tmp_path / "nowhere.pth")
    assert trial.teacher is not None and trial.teacher.mean is None
    (tmp_path / "broken.pth").write_bytes(np.random.default_rng(0).bytes(100))
    assert fed(taught(tmp_path / "broken.pth")) == IMAGENET
