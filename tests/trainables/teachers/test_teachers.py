"""Teachers: files of every origin, in the layouts their scripts write, and everything that is refused."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from checkpoints import inspect_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file
from small_methods import SIDE, TEACHER, make_batch, make_method, make_teacher, train_steps
from torch import Tensor, nn

from trainables.core.checksums import save_with_checksum
from trainables.core.errors import UserError
from trainables.methods import load_method
from trainables.planning.teacher_check import check_teacher
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import StudentSpec, TeacherSpec, TeacherTraining, TrialSpec
from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.teacher_file import save_teacher, teacher_path, teacher_trial

HEAD = frozenset({"teacher", "teacher_head"})
CLASSIFIER = frozenset({"teacher", "teacher_classifier"})
OPTIONS = TEACHER.options
IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
State = dict[str, Tensor]


def spec(checkpoint: Path, **changed: Any) -> TeacherSpec:
    """Fed what `IMAGES` are, whatever timm's network of this name was trained on."""
    usual = {"arch": TEACHER.arch, "options": OPTIONS, "checkpoint": checkpoint, **IMAGENET._asdict()}
    return TeacherSpec(**{**usual, **changed})


def trial(teacher: TeacherSpec | None) -> TrialSpec:
    return TrialSpec(
        method="moco", config={}, student=StudentSpec(arch="test_resnet"), teacher=teacher, epochs=1
    )


def load(checkpoint: Path, **changed: Any) -> Teacher:
    teacher = spec(checkpoint, **changed)
    return load_teacher(teacher, teacher_path(trial(teacher), Path("/nowhere")))


def classifier(arch: str = TEACHER.arch, **options: Any) -> nn.Module:
    """A network as other people's scripts make it, with a classifier, after some training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: nn.Module = timm.create_model(arch, num_classes=12, **(options or OPTIONS))
        model.train()
        model(torch.randn(4, 3, SIDE, SIDE))
    return model.eval()


def moco_file(path: Path, version: int = 2, wrapper: str = "module.", **extra: Any) -> nn.Module:
    """What `facebookresearch/moco` saves; returns its query encoder."""
    encoder = classifier()
    if version == 2:
        encoder.fc = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), encoder.fc)  # type: ignore[arg-type]
    state = OrderedDict()
    for role in ("encoder_q", "encoder_k"):
        for name, value in encoder.state_dict().items():
            state[f"{wrapper}{role}.{name}"] = value if role == "encoder_q" else torch.zeros_like(value)
    state[f"{wrapper}queue"] = torch.randn(12, 32)
    state[f"{wrapper}queue_ptr"] = torch.zeros(1, dtype=torch.long)
    optimizer = torch.optim.SGD(encoder.parameters(), 0.03, momentum=0.9)
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save({**content, **extra}, path)
    return encoder


# --- MoCo ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["module.", "", "module._orig_mod."])
@pytest.mark.parametrize("version", [1, 2])
def test_moco_checkpoints(tmp_path: Path, version: int, wrapper: str) -> None:
    path = tmp_path / "moco.pth.tar"
    encoder = moco_file(path, version, wrapper)
    facts = inspect_checkpoint(path)
    assert (facts.origin, facts.container, facts.arch) == (f"moco_v{version}", "state_dict", "resnet50")
    assert list(facts.roles) == ["backbone", "head", "momentum encoder", "queue"]
    assert [kind for kind, _ in facts.head] == (["linear"] if version == 1 else ["linear", "relu", "linear"])
    teacher = load(path)
    assert teacher.sha256 == facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (teacher.feature_dim, teacher.head_dim) == (24, 12)
    torch.testing.assert_close(teacher.embed(IMAGES), encoder(IMAGES), rtol=0, atol=0)
    check_teacher(spec(path), HEAD)


def test_moco_without_its_head_cannot_teach_retro(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth.tar"
    moco_file(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if ".fc." not in k}
    torch.save(content, path)
    check_teacher(spec(path), frozenset({"teacher"}))
    assert load(path).head is None
    with pytest.raises(
        UserError, match=r"teacher\.checkpoint: .*projection head.*roles found: backbone .*queue"
    ):
        check_teacher(spec(path), HEAD)


# --- timm and torchvision -----------------------------------------------------------------------------------


def timm_files(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """Each container timm's weights come in: path, and the name of the container."""
    state = classifier().state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    contents: dict[str, tuple[Any, str | None]] = {
        "flat": (state, None),
        "state_dict": ({"epoch": 3, "arch": "x", "state_dict": state}, "state_dict"),
        "model": ({"model": state}, "model"),
        "ema": (
            {
                "state_dict": other,
                "state_dict_ema": {f"module.{k}": v for k, v in state.items()},
                "args": argparse.Namespace(lr=0.1, opt="sgd", betas=(0.9, 0.99)),
            },
            "state_dict_ema",
        ),
    }
    found: dict[str, tuple[Path, str | None]] = {}
    for name, (content, container) in contents.items():
        torch.save(content, folder / f"{name}.pth")
        found[name] = folder / f"{name}.pth", container
    save_file(state, folder / "weights.safetensors")
    found["safetensors"] = folder / "weights.safetensors", None
    return found


@pytest.mark.parametrize("name", ["flat", "state_dict", "model", "ema", "safetensors"])
def test_timm_checkpoints(tmp_path: Path, name: str) -> None:
    path, container = timm_files(tmp_path)[name]
    facts = inspect_checkpoint(path)
    assert (facts.origin, facts.container) == ("timm", container)
    assert facts.roles["classifier"] == 2 and facts.head == ()
    teacher, model = load(path), classifier()
    expected = model.forward_head(model.forward_features(IMAGES), pre_logits=True)  # type: ignore[operator]
    assert torch.equal(teacher.features(IMAGES), expected)
    with pytest.raises(UserError, match=r"roles found: backbone \(\d+ tensors\), classifier \(2 tensors\)"):
        check_teacher(spec(path), HEAD)
    assert torch.equal(teacher.embed(IMAGES), teacher.features(IMAGES))
    assert teacher.width("embed") == teacher.feature_dim


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("test_vit", {}),  # classifier `head`
        ("test_convnext", {}),  # classifier `head.fc`, backbone `head.norm`
        ("test_efficientnet", {"channel_multiplier": 0.25}),  # classifier `classifier`
        ("test_mambaout", {}),  # further layers before the classifier
    ],
)
def test_timm_families_lose_their_classifier_only(tmp_path: Path, arch: str, options: dict[str, Any]) -> None:
    model = timm.create_model(arch, num_classes=7, **options).eval()
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    teacher = load(path, arch=arch, options=options)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(
        teacher.features(images), model.forward_head(model.forward_features(images), pre_logits=True)
    )


def test_torchvision_checkpoints(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(weights=None, width_per_group=64).eval()
    mobile = torchvision.models.mobilenet_v3_small(weights=None, width_mult=0.35).eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    torch.save(mobile.state_dict(), tmp_path / "mobilenet.pth")
    assert inspect_checkpoint(tmp_path / "resnet18-f37072fd.pth").origin == "torchvision or timm"
    assert inspect_checkpoint(tmp_path / "mobilenet.pth").origin == "torchvision"
    resnet.fc = nn.Identity()  # type: ignore[assignment]
    for arch in ("torchvision/resnet18", "resnet18"):  # the same names in both libraries
        teacher = load(tmp_path / "resnet18-f37072fd.pth", arch=arch, options={})
        torch.testing.assert_close(teacher.features(IMAGES), resnet(IMAGES))
    teacher = load(
        tmp_path / "mobilenet.pth", arch="torchvision/mobilenet_v3_small", options={"width_mult": 0.35}
    )
    mobile.classifier = nn.Identity()  # type: ignore[assignment]
    assert torch.equal(teacher.features(IMAGES), mobile(IMAGES))


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    state = {k: v for k, v in classifier().state_dict().items() if "num_batches_tracked" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(
        load(tmp_path / "old.pth").features(IMAGES), load(timm_files(tmp_path)["flat"][0]).features(IMAGES)
    )


# --- classifiers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("test_resnet", OPTIONS),  # `fc`
        ("test_vit", {"img_size": SIDE}),  # `head`
        ("test_convnext", {}),  # `head.fc`
        ("test_efficientnet", {"channel_multiplier": 0.25}),  # `classifier`
        ("mobilenetv3_small_050", {}),  # `classifier`, after a convolution
        ("test_mambaout", {}),  # `head.fc`, after further layers
        ("torchvision/resnet18", {}),  # `fc`
        ("torchvision/mobilenet_v2", {"width_mult": 0.25}),  # `classifier.1`
    ],
)
def test_a_teacher_classifies_as_the_network_did(tmp_path: Path, arch: str, options: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if arch.startswith("torchvision/"):
            model: Any = torchvision.models.get_model(arch.split("/")[1], num_classes=7, **options)
        else:
            model = timm.create_model(arch, num_classes=7, **options)
    torch.save({"model": model.eval().state_dict()}, tmp_path / "model.pth")
    assert inspect_checkpoint(tmp_path / "model.pth").classes == 7
    teacher = load(tmp_path / "model.pth", arch=arch, options=options)
    torch.testing.assert_close(teacher.logits(IMAGES), model(IMAGES).detach(), rtol=1e-4, atol=1e-5)
    assert not teacher.logits(IMAGES).requires_grad
    written = spec(tmp_path / "model.pth", arch=arch, options=options)
    check_teacher(written, CLASSIFIER)
    check_teacher(written, CLASSIFIER, classes=7)
    check_teacher(written, HEAD - {"teacher_head"}, classes=10)  # nobody asks for its classes
    with pytest.raises(UserError, match=r"the data's 10 classes, and the file's is for 7.*fitted"):
        check_teacher(written, CLASSIFIER, classes=10)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("deit_tiny_distilled_patch16_224", {"img_size": SIDE, "depth": 1}),  # two, on two tokens
        ("levit_128s", {}),  # a batch normalisation before it
        ("torchvision/mobilenet_v3_small", {"width_mult": 0.35}),  # two layers
    ],
)
def test_classifiers_of_more_than_one_layer_are_none(
    tmp_path: Path, arch: str, options: dict[str, Any]
) -> None:
    if arch.startswith("torchvision/"):
        model: Any = torchvision.models.get_model(arch.split("/")[1], num_classes=7, **options)
    else:
        model = timm.create_model(arch, num_classes=7, **options)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    if "distilled" in arch:
        assert inspect_checkpoint(tmp_path / "model.pth").origin == "deit, distilled"
    teacher = load(tmp_path / "model.pth", arch=arch, options=options)
    assert teacher.classifier is None
    with pytest.raises(UserError, match="has no classifier"):
        teacher.logits(IMAGES)
    with pytest.raises(UserError, match=r"teacher\.checkpoint: .*classifier.*roles found"):
        check_teacher(spec(tmp_path / "model.pth", arch=arch, options=options), CLASSIFIER)


def test_a_self_supervised_teacher_has_no_classifier(tmp_path: Path) -> None:
    moco_file(tmp_path / "moco.pth")
    with pytest.raises(UserError, match=r"needs the teacher's classifier.*supervised checkpoint"):
        check_teacher(spec(tmp_path / "moco.pth"), CLASSIFIER)
    moco = TeacherSpec(arch="test_resnet", train=TeacherTraining(method="moco", epochs=1))
    with pytest.raises(UserError, match=r"teacher\.train\.method: trains no classifier"):
        check_teacher(moco, CLASSIFIER)


def test_a_trained_classifier_is_saved_and_read_back(tmp_path: Path) -> None:
    kind = load_method("moco")

    class Classifying(kind):  # type: ignore[valid-type,misc]
        def own_classifier(self) -> nn.Linear:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(2)
                return nn.Linear(self.student.feature_dim, 5)

    plain = make_method("moco")
    method = Classifying(plain.config, plain.student, None, plain.context).eval()
    save_teacher(method, tmp_path / "own.safetensors")
    facts = inspect_checkpoint(tmp_path / "own.safetensors")
    assert set(facts.roles) == {"backbone", "head", "classifier"} and facts.classes == 5
    teacher = load(tmp_path / "own.safetensors", arch=method.student.arch, options=method.student.options)
    expected = method.own_classifier()(method.features(IMAGES, "backbone"))
    assert torch.equal(teacher.logits(IMAGES), expected.detach())


# --- raykd's own --------------------------------------------------------------------------------------------


def test_a_trained_moco_becomes_a_teacher(tmp_path: Path) -> None:
    method = make_method("moco")
    train_steps(method, 2)
    path = tmp_path / "own.safetensors"
    save_teacher(method, path)
    facts = inspect_checkpoint(path)
    assert (facts.origin, facts.arch, list(facts.roles)) == (
        "raykd",
        "test_efficientnet",
        ["backbone", "head"],
    )
    arch = method.student.arch, method.student.options
    teacher = load(path, arch=arch[0], options=arch[1])
    method.eval()
    assert torch.equal(teacher.features(IMAGES), method.features(IMAGES, "backbone"))
    assert torch.equal(teacher.embed(IMAGES), method.features(IMAGES, "head"))
    check_teacher(spec(path, arch=arch[0], options=arch[1]), HEAD)
    with pytest.raises(UserError, match="the file says it is test_efficientnet"):
        load(path)
    assert torch.isfinite(torch.tensor(train_steps(make_method("retro", teacher=teacher), 1))).all()


def test_raykds_own_file_with_metadata_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    method = make_method("moco")
    save_teacher(method, tmp_path / "own.safetensors")
    with safe_open(tmp_path / "own.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    arch = {"arch": method.student.arch, "options": method.student.options}
    for change, message in (
        ({"head": "[[["}, r"metadata is damaged: 'head'"),
        ({"head": '{"a": 1}'}, r"metadata is damaged: 'head'"),
        ({"options": "7"}, r"metadata is damaged: 'options'"),
        ({"head": '[["sphere", {}]]'}, r"its head does not fit.*sphere"),
        ({"head": '[["linear", {"radius": 1}]]'}, r"its head does not fit.*radius"),
    ):
        save_with_checksum(tensors, tmp_path / "changed.safetensors", {**metadata, **change})
        with pytest.raises(UserError, match=message):
            load(tmp_path / "changed.safetensors", **arch)


def test_a_method_without_a_head_of_its_own_saves_a_backbone(tmp_path: Path) -> None:
    method = make_method("retro")
    save_teacher(method, tmp_path / "own.safetensors")
    assert list(inspect_checkpoint(tmp_path / "own.safetensors").roles) == ["backbone"]


def test_teacher_trial_takes_the_data_and_no_axis() -> None:
    train = TeacherTraining(method="moco", preset="digits", epochs=3, seed=4)
    taught = TeacherSpec(arch=TEACHER.arch, options=OPTIONS, train=train)
    base = trial(taught)
    made = teacher_trial(base)
    assert made is not None
    assert (made.method, made.epochs, made.seed, made.teacher) == ("moco", 3, 4, None)
    assert (made.student.arch, made.student.options, made.data) == (TEACHER.arch, OPTIONS, base.data)
    assert made.config["queue_size"] == 512 and made.optim.lr == 2e-3
    moved = base.model_copy(
        update={"seed": 9, "epochs": 5, "optim": base.optim.model_copy(update={"lr": 1.0})}
    )
    again = teacher_trial(moved)
    assert again is not None and again.signature() == made.signature()
    wider = base.model_copy(update={"data": base.data.model_copy(update={"image_size": 32})})
    other = teacher_trial(wider)
    assert other is not None and other.signature() != made.signature()
    assert teacher_trial(trial(None)) is None
    assert teacher_trial(trial(spec(Path("x")))) is None


def test_a_trained_teacher_is_found_by_its_signature(tmp_path: Path) -> None:
    method = make_method("moco", teacher=None)
    taught = TeacherSpec(
        arch=method.student.arch,
        options=method.student.options,
        train=TeacherTraining(preset="digits", epochs=1),
    )
    training = teacher_trial(trial(taught))
    assert training is not None
    with pytest.raises(UserError, match="no such file"):
        load_teacher(taught, teacher_path(trial(taught), tmp_path))
    save_teacher(method, tmp_path / f"{training.signature()}.safetensors")
    teacher = load_teacher(taught, teacher_path(trial(taught), tmp_path))
    assert torch.equal(teacher.features(IMAGES), method.eval().features(IMAGES, "backbone"))


# --- what is refused ----------------------------------------------------------------------------------------


def test_a_backbone_that_fits_in_part_is_refused(tmp_path: Path) -> None:
    state = classifier().state_dict()
    total = sum(not k.endswith("num_batches_tracked") for k in state) - 2
    less = {k: v for k, v in state.items() if not k.startswith(("layer4.0.conv1", "layer3.0.bn1"))}
    torch.save(less, tmp_path / "less.pth")
    gone = sum(k.startswith(("layer4.0.conv1", "layer3.0.bn1")) and "num_b" not in k for k in state)
    with pytest.raises(
        UserError, match=rf"only {total - gone} of {total} weights.*first missing: layer3\.0\.bn1\.weight"
    ):
        load(tmp_path / "less.pth")
    torch.save(state, tmp_path / "full.pth")
    with pytest.raises(UserError, match=r"first of another shape: layer1.*in the file"):
        load(tmp_path / "full.pth", options={"channels": [12, 12, 16, 24]})
    # A deeper network holds all that a shallower one needs, in the same shapes.
    deeper = classifier(channels=OPTIONS["channels"], layers=[1, 1, 1, 2])
    torch.save(deeper.state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(UserError, match=r"holds more than test_resnet.*layer4\.1"):
        load(tmp_path / "deeper.pth", options={**OPTIONS, "layers": [1, 1, 1, 1]})
    with pytest.raises(UserError, match=r"only 0 of \d+ weights of test_efficientnet"):
        check_teacher(spec(tmp_path / "full.pth", arch="test_efficientnet", options={}), HEAD)


def test_a_head_for_other_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth"
    moco_file(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["module.encoder_q.fc.0.weight"] = torch.zeros(24, 99)
    torch.save(content, path)
    with pytest.raises(UserError, match=r"its head does not fit test_resnet, with features of 24"):
        load(path)


class Trap:
    """Pickled code: reading it carelessly makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for zipped in (True, False):
        path = tmp_path / f"trap{zipped}.pth"
        torch.save(
            {"state_dict": classifier().state_dict(), "more": Trap(mark)},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(UserError, match=r"cannot be read: it asks to run posix\.mkdir"):
            inspect_checkpoint(path)
    torch.save(classifier(), tmp_path / "whole.pth")  # a whole module is code too
    with pytest.raises(UserError, match=r"a whole model, .* no file's code is run"):
        inspect_checkpoint(tmp_path / "whole.pth")
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"file{suffix}"
    state = classifier().state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"teacher\.checkpoint: cannot be read: damaged"):
        check_teacher(spec(path), HEAD)
    path.write_bytes(b"not a checkpoint at all" * 9)
    with pytest.raises(UserError, match="cannot be read"):
        check_teacher(spec(path), HEAD)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    for content in ({"epoch": 3}, {"state_dict": {}}):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(UserError, match="holds no weights"):
            inspect_checkpoint(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        inspect_checkpoint(tmp_path / "list.pth")
    for missing, said in ((tmp_path / "absent.pth", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=said):
            inspect_checkpoint(missing)


def test_teachers_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    check_teacher(None, frozenset())
    train = TeacherTraining(method="moco", preset="digits", epochs=1)
    check_teacher(TeacherSpec(arch="test_resnet", train=train), HEAD)
    wrong: list[tuple[TeacherSpec | None, str]] = [
        (None, "teacher: is missing"),
        (TeacherSpec(arch="test_resent", train=train), r"teacher\.arch: no such architecture.*test_resnet"),
        (TeacherSpec(arch="test_resnet"), "has neither"),
        (TeacherSpec(arch="test_resnet", checkpoint=tmp_path / "x", train=train), "has both"),
        (
            TeacherSpec(arch="test_resnet", train=TeacherTraining(method="retro", epochs=1)),
            r"teacher\.train\.method: trains no projection head",
        ),
        (
            TeacherSpec(arch="test_resnet", train=TeacherTraining(method="mocco", epochs=1)),
            "Did you mean 'moco'",
        ),
    ]
    for given, message in wrong:
        with pytest.raises(UserError, match=message):
            check_teacher(given, HEAD)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth"
    moco_file(path)
    check_teacher(spec(path), HEAD)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        check_teacher(spec(path), HEAD)


# --- behaviour ----------------------------------------------------------------------------------------------


def test_a_teacher_stays_frozen_and_in_eval_mode() -> None:
    teacher = make_teacher().train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.embed(IMAGES.clone().requires_grad_()).requires_grad


def test_batch_statistics_are_those_of_train_mode_without_drift() -> None:
    images = make_batch(make_method("moco")).views[0]
    running, by_batch = make_teacher("eval"), make_teacher("batch")
    before = {name: value.clone() for name, value in by_batch.state_dict().items()}
    out = by_batch.embed(images)
    assert all(torch.equal(before[name], value) for name, value in by_batch.state_dict().items())
    assert not torch.allclose(out, running.embed(images), atol=1e-3)
    for module in running.modules():
        module.training = True
    torch.testing.assert_close(out, running.embed(images))


def test_every_row_of_the_table_can_be_reached_and_the_last_takes_all() -> None:
    assert LAYOUTS[-1].signature == ("",)
    assert len({layout.origin for layout in LAYOUTS}) == len(LAYOUTS)


def test_the_order_in_which_layouts_are_tried() -> None:
    """The first that fits is taken, so another order reads some files as those of another origin."""
    order = """
        raykd retro disco moco_v2 moco_v1 moco moco_v3 ibot dinov2 dino seed esvit a a i-jepa open_clip vissl
        swav barlow vicreg solo-learn solo-learn solo-learn lightly lightly a a supcontrast simsiam an
        torchvision moco_v2 compress mae dinov2 ibot deit deit dino torchvision torchvision timm
    """
    tried = iter([re.split("[ ,]", layout.origin)[0] for layout in LAYOUTS])
    assert [word for word in order.split() if word not in tried] == [], "this one comes too early"
