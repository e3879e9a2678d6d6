"""Files that people have: weights under any name and wrapper, records beside them, and what is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import json
import pathlib
import pickle
import random
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import inspect_checkpoint
from origin_files import IMAGES, State, both, mlp, network, prefixed, queue, trained
from safetensors.torch import save_file
from small_methods import SIDE, TEACHER
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.planning.teacher_check import check_teacher
from trainables.spec.normalisation import IMAGENET
from trainables.spec.trial import ModelSpec, StudentSpec, TeacherSpec, TrialSpec
from trainables.teachers.pretrained.open import open_checkpoint
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.teacher_file import teacher_path

HEAD, CLASSIFIER = frozenset({"teacher", "teacher_head"}), frozenset({"teacher", "teacher_classifier"})


def spec(path: Path, model: ModelSpec = TEACHER) -> TeacherSpec:
    return TeacherSpec(arch=model.arch, options=model.options, checkpoint=path, **IMAGENET._asdict())


def load(path: Path, model: ModelSpec = TEACHER) -> Teacher:
    teacher = spec(path, model)
    trial = TrialSpec(
        method="moco", config={}, student=StudentSpec(arch="test_resnet"), teacher=teacher, epochs=1
    )
    return load_teacher(teacher, teacher_path(trial, Path("/nowhere")))


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "teacher.pth"


def reads(path: Path, model: Any, content: Any) -> Teacher:
    """`content` gives back the network."""
    torch.save(content, path)
    teacher = load(path)
    assert torch.equal(teacher.features(IMAGES), both(model, None)[0])
    return teacher


def classifying(model: Any, classes: int = 7) -> State:
    fc = nn.Linear(24, classes)
    return {**prefixed("", model), **prefixed("fc.", fc)}


# --- names and wrappers -------------------------------------------------------------------------------------

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module")


@pytest.mark.parametrize("seed", range(6))
def test_wrappers_are_taken_out_wherever_they_stand(path: Path, model: Any, seed: int) -> None:
    """Each of them, before any part of a key and more than once, in every key alike or only in some."""
    drawn = random.Random(seed)
    inserted = {part: drawn.choices(WRAPPERS, k=drawn.randint(0, 2)) for part in ("", "layer2", "0", "conv1")}

    def wrap(key: str) -> str:
        *parts, last = key.split(".")
        words = list(inserted[""])
        for part in parts:
            words += [part, *inserted.get(part, ())]
        return ".".join([*words, last])

    state = {wrap(key): value for key, value in classifying(model).items()}
    assert any("_" in key.split(".")[0] or "module" in key for key in state) or not inserted[""]
    assert reads(path, model, {"state_dict": state}).classifier is not None


@pytest.mark.parametrize("prefix", ["model.", "net.", "anything.", "model.net.", "module.model.", "encoder."])
def test_a_common_first_word_is_taken_off(path: Path, model: Any, prefix: str) -> None:
    reads(path, model, {"state_dict": prefixed(prefix, classifying(model))})
    beside = {"criterion.weight": torch.ones(3), "val_acc": torch.zeros(())}
    if prefix.startswith("model"):
        reads(path, model, {"state_dict": {**prefixed(prefix, classifying(model)), **beside}})


def test_a_first_word_that_is_the_network_s_own_stays(path: Path) -> None:
    """A VGG without its classifier."""
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3), "features.0.bias": torch.zeros(8)}, path)
    facts = inspect_checkpoint(path)
    assert (facts.origin, facts.roles) == ("torchvision", {"backbone": 2})


CONTAINER_NAMES = (
    "model_state_dict", "net", "params", "ema_state_dict", "params_ema", "network", "weights", "model_state",
    "state_dict_ema", "whatever", "student", "my_network",
)  # fmt: skip


@pytest.mark.parametrize("name", CONTAINER_NAMES)
def test_weights_are_found_under_any_name(path: Path, model: Any, name: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = None
    content = {"epoch": 3, name: classifying(model), "optimizer": optimizer.state_dict(), "loss": 0.3}
    reads(path, model, content)
    reads(path, model, {"checkpoint": {"inner": content}})
    assert inspect_checkpoint(path).container == f"checkpoint.inner.{name}"


def test_averaged_weights_come_first_wherever_they_lie(path: Path, model: Any) -> None:
    state, noise = classifying(model), classifying(network(seed=5))
    averaged = {"n_averaged": torch.tensor(4), **prefixed("module.", state)}
    for content in (
        {"model": noise, "model_ema": state},
        {"state_dict": noise, "ema": {"module": state, "decay": 0.99}},
        {"state_dict": noise, "ema_model": averaged},
        {**prefixed("online_model.", noise), **prefixed("ema_model.", state), "step": torch.tensor(3)},
    ):
        reads(path, model, content)


def test_parts_side_by_side_are_one_network(path: Path, model: Any) -> None:
    head = mlp(24, 30, 12)
    for content in (
        {"backbone": model.state_dict(), "projector": head.state_dict()},
        {"model": {"encoder": model.state_dict(), "projector": head.state_dict()}, "epoch": 3},
    ):
        teacher = reads(path, model, content)
        torch.testing.assert_close(teacher.embed(IMAGES), both(model, head)[1])
    classifier = nn.Linear(24, 5)
    teacher = reads(path, model, {"backbone": model.state_dict(), "classifier": classifier.state_dict()})
    torch.testing.assert_close(teacher.logits(IMAGES), classifier(both(model, None)[0]).detach())


def test_weights_as_numpy_arrays_and_in_half_precision(path: Path, model: Any) -> None:
    state = classifying(model)
    reads(path, model, {"model": {name: value.numpy() for name, value in state.items()}})
    torch.save({name: v.half() if v.is_floating_point() else v for name, v in state.items()}, path)
    torch.testing.assert_close(load(path).features(IMAGES), both(model, None)[0], rtol=0.02, atol=0.02)


def test_several_networks_are_refused_by_name(path: Path, model: Any) -> None:
    torch.save({"generator": classifying(model), "discriminator": classifying(model)}, path)
    with pytest.raises(UserError, match=r"several sets of weights.*`generator` \(\d+ tensors\).*`discrim"):
        inspect_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "args": argparse.Namespace()}, r"holds no weights; it holds epoch \(a int\), args"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "holds no weights; it holds optimizer"),
        ({"shadow_params": [torch.zeros(3)] * 4}, "without their names: `shadow_params` is a list of 4 ten"),
        ([torch.zeros(3)] * 2, "holds a list of 2 tensors without names"),
        ({"_fsdp_wrapped_module._flat_param": torch.zeros(9)}, "FSDP has flattened"),
    ],
)
def test_what_is_found_is_said(path: Path, content: Any, message: str) -> None:
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        inspect_checkpoint(path)


# --- a classifier is no projection head ---------------------------------------------------------------------


def kd_files(model: Any) -> dict[str, dict[str, Any]]:
    """As RepDistiller, mdistiller and SupContrast save: `fc` has as many rows as there are classes."""
    state, teacher = classifying(model), classifying(network(seed=9), 7)
    options = argparse.Namespace(model="resnet110", dataset="cifar100", learning_rate=0.05)
    both_in_one = {**prefixed("module.student.", state), **prefixed("module.teacher.", teacher)}
    fc = {name: value for name, value in state.items() if name.startswith("fc.")}
    encoder = prefixed("encoder.", {name: value for name, value in state.items() if name not in fc})
    return {
        "repdistiller last": {"opt": options, "model": state, "optimizer": {}},
        "repdistiller, with an epoch": {"opt": options, "model": state, "epoch": 240},
        "mdistiller latest": {"epoch": 240, "model": both_in_one, "best_acc": 70.1},
        "mdistiller student": {"model": state},
        "supcontrast ce": {"opt": options, "model": {**encoder, **fc}, "epoch": 500, "optimizer": {}},
        "query encoder without a queue": {"state_dict": prefixed("encoder_q.", state)},
    }


@pytest.mark.parametrize("name", kd_files(network()))
def test_a_classifier_is_not_taken_for_a_projection_head(path: Path, model: Any, name: str) -> None:
    content = kd_files(model)[name]
    teacher = reads(path, model, content)
    facts = inspect_checkpoint(path)
    assert facts.classes == 7 and not facts.head and teacher.head is None
    check_teacher(spec(path), CLASSIFIER, classes=7)
    with pytest.raises(UserError, match=r"projection head, and the file holds none"):
        check_teacher(spec(path), HEAD)


def test_shapes_and_the_file_s_word_tell_a_classifier_of_two_layers(path: Path, model: Any) -> None:
    def content(head: nn.Module, **arguments: Any) -> dict[str, Any]:
        state = {**prefixed("", model), **prefixed("fc.", head)}
        return {"state_dict": state, "args": argparse.Namespace(**arguments)}

    assert reads(path, model, content(mlp(24, 24, 12))).head is not None  # MoCo-v2's, its prefix taken off
    assert reads(path, model, content(mlp(24, 24, 12), num_classes=12)).head is None
    assert reads(path, model, content(mlp(24, 8, 12))).head is None  # narrower than MoCo makes it


def test_origins_that_share_keys_need_what_is_theirs_alone(path: Path, model: Any) -> None:
    state = classifying(model, 12)
    options = argparse.Namespace(student_arch="resnet18", teacher_arch="resnet50")
    compress = {"opt": options, "model": state, "optimizer": {}, "epoch": 130}
    seed = {**prefixed("student.", state), **prefixed("teacher.", state)}
    for content, origin, head in (
        (compress, "compress", True),
        ({**compress, "opt": argparse.Namespace(model="resnet18")}, "timm", False),
        ({"state_dict": {**seed, **queue()}}, "seed", True),
        ({"state_dict": seed}, "a student and its teacher", False),
    ):
        torch.save(content, path)
        facts = inspect_checkpoint(path)
        assert (facts.origin, bool(facts.head)) == (origin, head)


# --- heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_barlow_twins_and_vicreg_keep_their_heads(path: Path, model: Any, bias: bool) -> None:
    """The last layer has no bias; VICReg's others have one, Barlow Twins' have none."""
    layers: list[nn.Module] = []
    for first in (24, 20):
        layers += [nn.Linear(first, 20, bias=bias), nn.BatchNorm1d(20), nn.ReLU()]
    head = trained(nn.Sequential(*layers, nn.Linear(20, 20, bias=False)), 24)
    state = {**prefixed("module.backbone.", model), **prefixed("module.projector.", head)}
    if not bias:
        state |= prefixed("module.bn.", nn.BatchNorm1d(20, affine=False))
    teacher = reads(path, model, {"epoch": 999, "model": state, "optimizer": {}})
    torch.testing.assert_close(teacher.embed(IMAGES), both(model, head)[1])
    assert inspect_checkpoint(path).origin == ("vicreg" if bias else "barlow twins")


def test_an_unreadable_head_costs_the_head_alone(path: Path, model: Any) -> None:
    strange = {"0.weight": torch.zeros(20, 24, 1), "7.weight": torch.zeros(3, 20)}
    state = {**prefixed("backbone.", model), **prefixed("projector.", strange)}
    teacher = reads(path, model, {"model": state})
    assert teacher.head is None
    check_teacher(spec(path), frozenset({"teacher"}))
    with pytest.raises(
        UserError, match=r"the file's cannot be read: its head has, by its weights, layers at"
    ):
        check_teacher(spec(path), HEAD)


# --- masked training ----------------------------------------------------------------------------------------

DINOV2 = {"img_size": SIDE - SIDE % 14, "embed_dim": 48, "num_heads": 3, "depth": 4}


def dinov2(arch: str) -> Any:
    made = network_at(ModelSpec(arch=arch, options=DINOV2))
    for name, value in made.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(value)  # 1e-5 at first, and no block would count
        elif name in ("cls_token", "pos_embed", "reg_token"):
            nn.init.normal_(value)
    return made


def network_at(model: ModelSpec) -> Any:
    from trainables.networks.backbones import build_backbone

    return build_backbone(model, 3).model.eval()


def chunked(state: State, size: int) -> State:
    """As DINOv2's training names blocks: in chunks of `size`, numbered through."""

    def name(key: str) -> str:
        first, *rest = key.split(".")
        return ".".join([first, str(int(rest[0]) // size), *rest]) if first == "blocks" else key

    return {name(key): value for key, value in state.items()}


@torch.no_grad()
def test_meta_s_dinov2_is_read_as_it_computes(path: Path) -> None:
    arch = "vit_small_patch14_dinov2"
    made = dinov2(arch)
    images = IMAGES[..., : DINOV2["img_size"], : DINOV2["img_size"]]
    expected = made(images)
    masked = {"mask_token": torch.zeros(1, 48)}
    state = {**made.state_dict(), **masked}
    student = {"student": {f"backbone.{name}": value * 0 for name, value in state.items()}}
    head = {"dino_head.mlp.0.weight": torch.zeros(8, 48), "ibot_head.mlp.0.weight": torch.zeros(8, 48)}
    for content in (
        state,
        chunked(state, 2),
        {"teacher": {**prefixed("backbone.", state), **head}},
        {"teacher": {**prefixed("backbone.", chunked(state, 2)), **head}, **student},
    ):
        torch.save(content, path)
        teacher = load(path, ModelSpec(arch=arch, options=DINOV2))
        assert torch.equal(teacher.features(images), expected) and teacher.head is None
        assert inspect_checkpoint(path).roles["masked training"] == 1


@torch.no_grad()
def test_registers_are_read_as_meta_s_code_computes_them(path: Path) -> None:
    """Meta: positions are added to class token and patches, then registers go between. timm: the class token
    has no position of its own."""
    arch = "vit_small_patch14_reg4_dinov2"
    made = dinov2(arch)
    images = IMAGES[..., : DINOV2["img_size"], : DINOV2["img_size"]]
    state = made.state_dict()
    positions = torch.cat([torch.randn(1, 1, 48), state["pos_embed"]], 1)
    patches = made.patch_embed(images)
    tokens = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches], 1) + positions
    tokens = torch.cat([tokens[:, :1], state["reg_token"].expand(len(images), -1, -1), tokens[:, 1:]], 1)
    for block in made.blocks:
        tokens = block(tokens)
    expected = made.norm(tokens)[:, 0]
    theirs = {"register_tokens": state.pop("reg_token"), **state, "pos_embed": positions}
    torch.save({**theirs, "mask_token": torch.zeros(1, 48)}, path)
    teacher = load(path, ModelSpec(arch=arch, options=DINOV2))
    torch.testing.assert_close(teacher.features(images), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_mae_and_ibot_lose_what_serves_masked_training(path: Path) -> None:
    made = network_at(ModelSpec(arch="test_vit", options={"img_size": SIDE}))
    decoder = {
        "mask_token": torch.zeros(1, 1, 16),
        "decoder_pos_embed": torch.zeros(1, 5, 16),
        "decoder_embed.weight": torch.zeros(16, 64),
        "decoder_blocks.0.norm1.weight": torch.zeros(16),
        "decoder_pred.bias": torch.zeros(3),
    }
    for extra, origin in ((decoder, "mae"), ({"masked_embed": torch.zeros(1, 64)}, "ibot, a backbone alone")):
        torch.save({"model": {**made.state_dict(), **extra}, "args": argparse.Namespace(model="x")}, path)
        teacher = load(path, ModelSpec(arch="test_vit", options={"img_size": SIDE}))
        assert torch.equal(teacher.features(IMAGES), made(IMAGES))
        facts = inspect_checkpoint(path)
        assert (facts.origin, facts.roles["masked training"]) == (origin, len(extra))


@torch.no_grad()
def test_clip_s_image_tower_is_read_by_timm_s_own_table_of_names(path: Path) -> None:
    options = {"img_size": SIDE, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 2}
    tower = ModelSpec(arch="vit_base_patch16_clip_224", options=options)
    made = network_at(tower)
    nn.init.normal_(made.pos_embed)
    state = {
        f"visual.{name}": value
        for name, value in made.state_dict().items()
        if not name.startswith("blocks.")
        and name not in ("cls_token", "pos_embed", "patch_embed.proj.weight")
    }
    theirs = {
        key.replace("norm_pre", "ln_pre").replace("visual.norm", "visual.ln_post"): value
        for key, value in state.items()
    }
    for name, value in made.state_dict().items():
        if name.startswith("blocks."):
            key = name.replace("blocks.", "transformer.resblocks.").replace("norm", "ln_")
            key = key.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj", "attn.out_proj")
            theirs[f"visual.{key.replace('mlp.fc1', 'mlp.c_fc').replace('mlp.fc2', 'mlp.c_proj')}"] = value
    theirs["visual.class_embedding"] = made.cls_token[0, 0]
    theirs["visual.positional_embedding"] = made.pos_embed[0]
    theirs["visual.conv1.weight"] = made.patch_embed.proj.weight
    theirs["visual.proj"] = torch.zeros(48, 16)
    theirs |= {"token_embedding.weight": torch.zeros(9, 16), "logit_scale": torch.zeros(())}
    torch.save(theirs, path)
    assert torch.equal(load(path, tower).features(IMAGES), made(IMAGES))
    # Positions for images of another size would have to be resized: refused, as everywhere.
    larger = ModelSpec(arch=tower.arch, options={**options, "img_size": SIDE + 8})
    with pytest.raises(UserError, match=r"teacher\.arch: only"):
        load(path, larger)


# --- records beside the weights -----------------------------------------------------------------------------

RECORDS: dict[str, Any] = {
    "numpy scalar": np.float64(70.0),
    "numpy integer": np.int64(7),
    "numpy bool": np.bool_(True),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy objects": np.array([None, "x"], dtype=object),
    "numpy state": np.random.RandomState(0).get_state(),
    "numpy generator": np.random.default_rng(0),
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "timedelta": datetime.timedelta(1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1.0], maxlen=4),
    "path": Path("x/y"),
    "windows path": pathlib.PureWindowsPath("c:/x"),
    "namespace": argparse.Namespace(lr=np.float32(0.1), out=Path("x"), kind=int),
    "simple namespace": types.SimpleNamespace(a=2),
    "size": torch.Size([1, 2]),
    "decimal": decimal.Decimal("1.5"),
    "version": torch.__version__,
    "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("zipped", [True, False])
def test_records_beside_the_weights_are_read(path: Path, name: str, zipped: bool) -> None:
    content = {"state_dict": {"w.weight": torch.ones(2)}, "record": RECORDS[name], "list": [RECORDS[name]]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert inspect_checkpoint(path).roles


def test_plain_records_keep_their_values(path: Path) -> None:
    torch.save({name: RECORDS[name] for name in RECORDS}, path)
    read = open_checkpoint(path, "FILE").content
    assert read["numpy scalar"] == 70.0 and read["numpy integer"] == 7
    assert np.array_equal(read["numpy array"].value, RECORDS["numpy array"])
    assert read["numpy objects"].value is None
    for name in ("datetime", "timedelta", "counter", "ordered", "path", "decimal", "simple namespace"):
        assert read[name] == RECORDS[name]
    assert read["defaultdict"] == {"a": [1]} and read["deque"] == [1.0]


def test_settings_of_a_library_that_is_not_there_are_read_and_its_code_is_not_run(tmp_path: Path) -> None:
    """As omegaconf's, whose class is not to be had here, and which would run code of its own when it is."""
    mark, path = tmp_path / "mark", tmp_path / "x.ckpt"
    library: Any = types.ModuleType("omegaconf.dictconfig")

    class DictConfig(dict):  # type: ignore[type-arg]
        def __setstate__(self, state: Any) -> None:
            mark.touch()

    DictConfig.__module__, DictConfig.__qualname__ = library.__name__, "DictConfig"
    library.DictConfig = DictConfig
    names = ("omegaconf", library.__name__)
    sys.modules |= dict.fromkeys(names, library)
    try:
        config = DictConfig(arch="test_resnet")
        config.flags = {"readonly": True}  # type: ignore[attr-defined]
        torch.save({"state_dict": {"w.weight": torch.ones(2)}, "hyper_parameters": config}, path)
        for _ in range(2):  # once with the library there, once without
            assert inspect_checkpoint(path).arch == "test_resnet" and not mark.exists()
            for name in names:
                sys.modules.pop(name, None)
    finally:
        for name in names:
            sys.modules.pop(name, None)


# --- what is refused ----------------------------------------------------------------------------------------


def deflate(path: Path, extra: Callable[[zipfile.ZipFile], None] = lambda _: None) -> None:
    """Rewrite the archive with compression."""
    with zipfile.ZipFile(path) as stored:
        held = {one.filename: stored.read(one) for one in stored.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in held.items():
            archive.writestr(name, data)
        extra(archive)


def test_a_deflated_file_is_read_and_one_that_unpacks_to_more_is_not(path: Path, model: Any) -> None:
    torch.save({"state_dict": classifying(model)}, path)
    deflate(path)
    assert torch.equal(load(path).features(IMAGES), both(model, None)[0])

    def zeros(archive: zipfile.ZipFile) -> None:
        with archive.open("archive/data/999", "w") as file:
            for _ in range(100):
                file.write(bytes(1 << 20))

    deflate(path, zeros)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(
        UserError, match=r"cannot be read: its .* unpack to 105\.\d MB.*save the weights alone"
    ):
        inspect_checkpoint(path)


def test_views_that_claim_more_than_the_file_holds_are_refused(path: Path) -> None:
    head = {
        "fc.0.weight": torch.zeros(1).expand(90_000, 90_000),
        "fc.2.weight": torch.zeros(1).expand(9, 90_000),
    }
    torch.save({"state_dict": prefixed("encoder_q.", head)}, path)
    with pytest.raises(UserError, match=r"its tensors claim \d+ MB and hold 0\.0 MB"):
        inspect_checkpoint(path)


class Whatever:
    """A class of the training script."""


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "TorchScript": (lambda p: torch.jit.script(nn.Linear(2, 2)).save(str(p)), "TorchScript program"),
    "a newer pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1}, 4)), "without running its code"),
    "Git LFS": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "gzip; unpack it first"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n" + bytes(99)), "HDF5"),
    "a web page": (lambda p: p.write_text("<!DOCTYPE html>"), "a web page"),
    "an index": (lambda p: p.write_text(json.dumps({"weight_map": {}})), "its name must end in"),
    "a class of the script": (
        lambda p: torch.save({"c": Whatever()}, p),
        "asks to run test_pretrained_files",
    ),
    "a whole model": (lambda p: torch.save(nn.Linear(2, 2), p), "whole model"),
    "half a file": (lambda p: half(p), "damaged"),
}


def half(path: Path) -> None:
    torch.save({"a.weight": torch.zeros(999)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_called_by_its_name(path: Path, name: str) -> None:
    write, message = UNREADABLE[name]
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        inspect_checkpoint(path)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_safetensors_under_another_name_and_a_part_of_several(tmp_path: Path, model: Any) -> None:
    state: dict[str, Tensor] = {name: value.contiguous() for name, value in classifying(model).items()}
    save_file(state, tmp_path / "pytorch_model.bin")
    assert torch.equal(load(tmp_path / "pytorch_model.bin").features(IMAGES), both(model, None)[0])
    save_file(state, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(UserError, match="of the 3 files of this checkpoint 2 are not in the folder"):
        inspect_checkpoint(tmp_path / "model-00001-of-00003.safetensors")


def test_an_mlp_with_a_row_for_each_class_that_the_file_names_is_no_projection_head(
    path: Path, model: Any
) -> None:
    content = {
        "model": {**prefixed("", model), **prefixed("fc.", mlp(24, 24, 7))},
        "classes": list("abcdefg"),
    }
    torch.save(content, path)
    facts = inspect_checkpoint(path)
    assert not facts.head and "head" not in facts.roles
    torch.save({**content, "classes": list("abcde")}, path)  # not as many: nothing says what it is
    assert inspect_checkpoint(path).head


def test_weights_that_are_not_finite_are_refused(path: Path, model: Any) -> None:
    state = prefixed("", model)
    name = next(name for name, weights in state.items() if weights.is_floating_point())
    torch.save({**state, name: torch.full_like(state[name], float("nan"))}, path)
    with pytest.raises(UserError, match=f"1 of its .* not finite, the first .*{name}"):
        check_teacher(spec(path), frozenset({"teacher"}))
