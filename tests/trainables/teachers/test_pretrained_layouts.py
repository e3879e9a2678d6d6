"""Teachers from every origin in the field: read as they were written, or refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from checkpoints import inspect_checkpoint
from origin_files import (
    HEADED,
    HEADLESS,
    IMAGES,
    VIT,
    Original,
    Writer,
    dino,
    dino_resnet,
    lightly,
    moco_v3,
    network,
    retro,
    solo_learn,
    swav,
    wrapped,
)
from safetensors.torch import save_file
from small_methods import SIDE, TEACHER, make_method, train_steps
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.methods import methods
from trainables.methods.base import TAUGHT
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import head_text
from trainables.planning.teacher_check import check_teacher
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import ModelSpec, StudentSpec, TeacherSpec, TrialSpec
from trainables.teachers.architecture import guess_arch
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.teacher_file import teacher_path

HEAD = frozenset({"teacher", "teacher_head"})
State = dict[str, Tensor]
COUNTER = "num_batches_tracked"


def named(writer: Writer) -> str:
    return writer.__name__


def spec(path: Path, model: ModelSpec, **changed: Any) -> TeacherSpec:
    """Fed what `IMAGES` are, whatever timm's network of this name was trained on."""
    mean, std = IMAGENET
    return TeacherSpec(arch=model.arch, options=model.options, checkpoint=path, mean=mean, std=std, **changed)


def load(path: Path, model: ModelSpec, **changed: Any) -> Teacher:
    teacher = spec(path, model, **changed)
    student = StudentSpec(arch="test_resnet")
    trial = TrialSpec(method="moco", config={}, student=student, teacher=teacher, epochs=1)
    return load_teacher(teacher, teacher_path(trial, Path("/nowhere")))


def change(path: Path, edit: Callable[[State], State]) -> None:
    """Rewrite the file's weights, where they lie."""
    content = torch.load(path, weights_only=False)
    for name in ("state_dict", "model", "teacher"):
        if name in content:
            content[name] = edit(content[name])
            break
    else:
        content = edit(content)
    torch.save(content, path)


def of_head(original: Original, key: str) -> bool:
    return key.startswith(original.head_at)


# --- read as written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [*HEADED, *HEADLESS], ids=named)
def test_a_file_gives_back_the_network_that_was_saved(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "teacher.ckpt"
    original = writer(path)
    facts = inspect_checkpoint(path)
    assert (facts.origin, facts.container) == (original.origin, original.container)
    assert set(facts.roles) == original.roles
    assert head_text(facts.head) == original.head
    teacher = load(path, original.model)
    torch.testing.assert_close(teacher.features(IMAGES), original.features, rtol=0, atol=0)
    if original.embedding is None:
        assert teacher.head is None
    else:
        torch.testing.assert_close(teacher.embed(IMAGES), original.embedding, rtol=1e-5, atol=1e-6)
        assert teacher.head_dim == original.embedding.shape[1]
        check_teacher(spec(path, original.model), HEAD)


@pytest.mark.parametrize("writer", HEADED, ids=named)
def test_retro_learns_through_every_head(tmp_path: Path, writer: Writer) -> None:
    original = writer(tmp_path / "teacher.ckpt")
    teacher = load(tmp_path / "teacher.ckpt", original.model)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    losses = train_steps(make_method("retro", teacher=teacher), 2)
    assert torch.isfinite(torch.tensor(losses)).all() and losses[0] != losses[1]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
@pytest.mark.parametrize("head", ["tuned", "fresh"])
@pytest.mark.parametrize("writer", [moco_v3, swav, dino_resnet], ids=named)
def test_retro_trains_heads_with_norms_of_its_own(
    tmp_path: Path, writer: Writer, head: str, batch_norm: str
) -> None:
    original = writer(tmp_path / "teacher.ckpt")
    teacher = load(tmp_path / "teacher.ckpt", original.model, batch_norm=batch_norm)
    assert teacher.head is not None
    before = {name: value.clone() for name, value in teacher.head.state_dict().items()}
    method = make_method("retro", teacher=teacher, head=head)
    started = [p.detach().clone() for p in method.head.parameters()]
    assert torch.isfinite(torch.tensor(train_steps(method, 2))).all()
    moved = [not torch.equal(a, b) for a, b in zip(started, method.head.parameters(), strict=True)]
    assert any(moved)
    assert all(torch.equal(before[name], value) for name, value in teacher.head.state_dict().items())


TAUGHT_BY_ANY = [
    name
    for name, method in methods().items()
    if method.needs & TAUGHT and not method.needs & {"feature_maps", "teacher_classifier"}
]


@pytest.mark.parametrize("name", TAUGHT_BY_ANY)
def test_a_vision_transformer_teaches_a_convolutional_student(tmp_path: Path, name: str) -> None:
    """Every method that needs no more than embeddings."""
    assert TAUGHT_BY_ANY
    teacher = load(tmp_path / "teacher.pth", dino(tmp_path / "teacher.pth").model)
    assert torch.isfinite(torch.tensor(train_steps(make_method(name, teacher=teacher), 2))).all()


# --- what shapes do not tell --------------------------------------------------------------------------------


def test_moco_v3s_small_transformer_has_twelve_heads(tmp_path: Path) -> None:
    options = {"img_size": SIDE, "depth": 2, "num_heads": 12}
    twelve = ModelSpec(arch="vit_small_patch16_224", options=options)
    original = moco_v3(tmp_path / "vit-s.pth.tar", twelve, "head", 3)
    assert torch.equal(load(tmp_path / "vit-s.pth.tar", twelve).features(IMAGES), original.features)
    six = ModelSpec(arch="vit_small_patch16_224", options={"img_size": SIDE, "depth": 2})
    with pytest.raises(UserError, match=r"teacher\.options\.num_heads: .*12 attention heads.*num_heads: 12"):
        load(tmp_path / "vit-s.pth.tar", six)


def test_solo_learns_transformers_with_fixed_positions_have_twelve_heads(tmp_path: Path) -> None:
    three = ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": SIDE, "depth": 1})
    twelve = ModelSpec(arch=three.arch, options={**three.options, "num_heads": 12})
    for fixed, right, wrong in ((True, twelve, three), (False, three, None)):
        model = network(right)
        if fixed:
            nn.init.zeros_(model.pos_embed[:, 0])  # MoCo v3's and MAE's
        state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": {**state, "classifier.weight": torch.zeros(9, 192)}}, tmp_path / "x.ckpt")
        with torch.no_grad():
            torch.testing.assert_close(load(tmp_path / "x.ckpt", right).features(IMAGES), model(IMAGES))
        if wrong is not None:
            with pytest.raises(UserError, match=r"12 attention heads.*vit_tiny_patch16_224 has 3"):
                load(tmp_path / "x.ckpt", wrong)


def test_heads_with_other_activations_are_not_taken_for_relu(tmp_path: Path) -> None:
    """lightly's MSN names its head as every other, and its activation is GELU."""
    original = lightly(tmp_path / "msn.ckpt")
    change(
        tmp_path / "msn.ckpt", lambda state: {**state, "anchor_projection_head.layers.0.weight": torch.eye(2)}
    )
    teacher = load(tmp_path / "msn.ckpt", original.model)
    assert teacher.head is None and torch.equal(teacher.features(IMAGES), original.features)


def test_solo_learns_small_stem_pads_by_two(tmp_path: Path) -> None:
    path = tmp_path / "cifar.ckpt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        saved: Any = torchvision.models.resnet18(weights=None)
        # As solo-learn does for CIFAR.
        saved.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    saved.maxpool, saved.fc = nn.Identity(), nn.Identity()
    images = IMAGES[..., :8, :8]
    expected = saved.eval()(images).detach()
    state = {f"backbone.{name}": value for name, value in saved.state_dict().items()}
    state |= {"classifier.weight": torch.zeros(10, 512), "classifier.bias": torch.zeros(10)}
    torch.save({"state_dict": state}, path)
    right = ModelSpec(arch="resnet18", options={"stem": "small_padding2"})
    torch.testing.assert_close(load(path, right).features(images), expected)
    assert guess_arch(read_checkpoint(path, "FILE")) == right
    with pytest.raises(UserError, match=r"teacher\.options\.stem: .*pads images by 2.*stem: small_padding2"):
        load(path, ModelSpec(arch="resnet18", options={"stem": "small"}))


def test_solo_learns_online_classifier_is_its_teachers(tmp_path: Path) -> None:
    original = solo_learn(tmp_path / "barlow.ckpt")
    state = torch.load(tmp_path / "barlow.ckpt", weights_only=True)["state_dict"]
    expected = original.features @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(load(tmp_path / "barlow.ckpt", original.model).logits(IMAGES), expected)


def test_retros_reused_head_is_not_offered(tmp_path: Path) -> None:
    path = tmp_path / "retro.pth.tar"
    original = retro(path)
    with pytest.raises(UserError, match=r"holds none.*teacher's head, reused.*its head is the teacher's"):
        check_teacher(spec(path, original.model), HEAD)


def test_swavs_wide_networks_are_told_apart_from_wide_resnet(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.zeros(128, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(256, 128, 1, 1)}
    state["prototypes.weight"] = torch.zeros(3000, 128)
    torch.save(wrapped(state), tmp_path / "w2.pth")
    with pytest.raises(UserError, match=r"SwAV's own wider networks"):
        load(tmp_path / "w2.pth", TEACHER)


def test_torchvisions_vision_transformer_is_timms(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = torchvision.models.VisionTransformer(
            image_size=SIDE, patch_size=16, num_layers=2, num_heads=3, hidden_dim=192, mlp_dim=768,
            num_classes=9,
        ).eval()  # fmt: skip
        nn.init.normal_(vit.heads.head.weight)  # torchvision starts with zeros
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    teacher = load(
        tmp_path / "vit.pth",
        ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": SIDE, "depth": 2}),
    )
    assert inspect_checkpoint(tmp_path / "vit.pth").origin == "torchvision vit"
    torch.testing.assert_close(teacher.logits(IMAGES), vit(IMAGES).detach(), rtol=1e-4, atol=1e-5)


def test_a_transformer_takes_images_of_another_size_by_timms_option(tmp_path: Path) -> None:
    original = dino(tmp_path / "dino.pth")
    smaller = ModelSpec(arch=VIT.arch, options={"img_size": SIDE - 16})
    with pytest.raises(UserError, match=r"first of another shape: pos_embed.*`teacher: \{image_size: N\}`"):
        load(tmp_path / "dino.pth", smaller)
    any_size = ModelSpec(arch=VIT.arch, options={**VIT.options, "dynamic_img_size": True})
    teacher = load(tmp_path / "dino.pth", any_size)
    torch.testing.assert_close(teacher.features(IMAGES), original.features)
    assert teacher.embed(IMAGES[..., :-16, :-16]).shape == (len(IMAGES), 30)


@pytest.mark.parametrize("container", ["model", None])
def test_deit_and_timm_share_names_and_not_containers(tmp_path: Path, container: str | None) -> None:
    state = {**network(VIT).state_dict(), "head.weight": torch.zeros(9, 64), "head.bias": torch.zeros(9)}
    torch.save({container: state} if container else state, tmp_path / "vit.pth")
    assert inspect_checkpoint(tmp_path / "vit.pth").origin == ("deit" if container else "timm")


# --- nearly right -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", HEADED, ids=named)
def test_a_head_that_is_missing_or_cannot_be_read_costs_the_head_alone(
    tmp_path: Path, writer: Writer
) -> None:
    path = tmp_path / "teacher.ckpt"
    original = writer(path)
    whole = path.read_bytes()
    change(path, lambda state: {k: v for k, v in state.items() if not of_head(original, k)})
    assert torch.equal(load(path, original.model).features(IMAGES), original.features)
    with pytest.raises(UserError, match=r"projection head.*holds none.*roles found: .*backbone \(\d+ tens"):
        check_teacher(spec(path, original.model), HEAD)

    path.write_bytes(whole)
    for number in (0, -1):  # the first weight of the head, and the last

        def without_one(state: State, number: int = number) -> State:
            gone = [k for k in state if of_head(original, k) and not k.endswith(COUNTER)][number]
            return {k: v for k, v in state.items() if k != gone}

        change(path, without_one)
        teacher = load(path, original.model)
        assert teacher.head is None and torch.equal(teacher.features(IMAGES), original.features)
        check_teacher(spec(path, original.model), frozenset({"teacher"}))
        with pytest.raises(UserError, match=r"cannot be read: its head|holds none"):
            check_teacher(spec(path, original.model), HEAD)
        path.write_bytes(whole)


WRONG = ("missing", "shape", "prefix")


@pytest.mark.parametrize(
    ("writer", "wrong"),
    [
        pytest.param(writer, wrong, marks=() if number % 3 == WRONG.index(wrong) else pytest.mark.slow)
        for number, writer in enumerate([*HEADED, *HEADLESS])
        for wrong in WRONG
    ],
    ids=lambda value: value if isinstance(value, str) else named(value),
)
def test_one_wrong_tensor_of_the_backbone_refuses_it(tmp_path: Path, writer: Writer, wrong: str) -> None:
    path = tmp_path / "teacher.ckpt"
    original = writer(path)

    def spoiled(state: State) -> State:
        keys = [k for k in state if k.startswith(original.backbone_at) and not of_head(original, k)]
        one = next(k for k in keys if state[k].ndim > 1)
        if wrong == "missing":
            return {k: v for k, v in state.items() if k != one}
        if wrong == "shape":
            return {**state, one: torch.zeros(3, *state[one].shape)}
        return {("lost." + k if k == one else k): v for k, v in state.items()}

    change(path, spoiled)
    with pytest.raises(UserError, match=r"teacher\.arch: .*(missing|of another shape|no place)"):
        load(path, original.model)


def test_a_lost_prefix_is_refused(tmp_path: Path) -> None:
    """Half of the keys with it and half without: an accident of somebody's script."""
    path = tmp_path / "teacher.pth"
    original = moco_v3(path)

    def half(state: State) -> State:
        return {k.replace("base_encoder.", "") if "layer2" in k else k: v for k, v in state.items()}

    change(path, half)
    with pytest.raises(UserError, match=r"first missing: layer2.*roles .*other: layer2"):
        load(path, original.model)


class Trap:
    """Pickled code: reading it carelessly makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("make", [timm.create_model, torchvision.models.get_model])
def test_a_whole_model_is_refused_with_what_to_save(make: Callable[[str], nn.Module], tmp_path: Path) -> None:
    torch.save(make("resnet18"), tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"whole model.*`torch\.save\(model\.state_dict\(\), "):
        read_checkpoint(tmp_path / "model.pth", "FILE")


@pytest.mark.parametrize("writer", [*HEADED, *HEADLESS], ids=named)
def test_files_with_code_or_cut_short_are_refused_and_nothing_runs(tmp_path: Path, writer: Writer) -> None:
    path, mark = tmp_path / "teacher.ckpt", tmp_path / "mark"
    original = writer(path)
    whole = path.read_bytes()
    content = torch.load(path, weights_only=False)
    torch.save({**content, "hyper_parameters": {"cfg": Trap(mark)}}, path)
    with pytest.raises(UserError, match=r"asks to run posix\.mkdir.*save the weights alone"):
        load(path, original.model)
    assert not mark.exists()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match="cannot be read: damaged"):
        load(path, original.model)


# --- which architecture -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "origin"),
    [
        ("resnet18", "torchvision or timm"),
        ("vit_tiny_patch16_224", "timm"),
        ("mobilenetv3_small_100", "timm"),
    ],
)
def test_the_usual_architectures_are_known_by_names_and_shapes(
    tmp_path: Path, arch: str, origin: str
) -> None:

    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(arch, num_classes=11).state_dict(), path)
    guess = guess_arch(read_checkpoint(path, "FILE"))
    assert guess == ModelSpec(arch=arch)
    with pytest.raises(UserError, match=rf"teacher\.arch: .*by names and shapes it is {arch}"):
        load(path, TEACHER)
    assert load(path, ModelSpec(arch=arch)).logits(torch.zeros(1, 3, 224, 224)).shape == (1, 11)


def test_a_transformer_for_other_images_is_known_with_its_size(tmp_path: Path) -> None:
    model = network(ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": SIDE}))
    torch.save({"teacher": {f"backbone.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "x.pth")
    guess = guess_arch(read_checkpoint(tmp_path / "x.pth", "FILE"))
    assert guess == ModelSpec(arch="vit_tiny_patch16_224", options={"img_size": SIDE})


def test_moco_v3s_transformer_is_known_with_its_heads(tmp_path: Path) -> None:
    twelve = ModelSpec(arch="vit_small_patch16_224", options={"num_heads": 12})
    state = {f"base_encoder.{k}": v for k, v in network_at_224(twelve).items()}
    torch.save({"state_dict": state}, tmp_path / "vit-s.pth")
    assert guess_arch(read_checkpoint(tmp_path / "vit-s.pth", "FILE")) == twelve


def network_at_224(model: ModelSpec) -> State:
    state: State = build_backbone(model).model.state_dict()
    return state


def test_an_unusual_architecture_is_not_guessed(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "x.pth")
    assert guess_arch(read_checkpoint(tmp_path / "x.pth", "FILE")) is None
