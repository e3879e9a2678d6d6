"""Interpolation, crop share, channels and size: as file, origin, timm or torchvision say, in that order."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from safetensors.torch import save_file

from trainables import references
from trainables.core.errors import UserError
from trainables.data.data_sets import open_data
from trainables.evaluation import evaluate
from trainables.planning.check import TrialChecker
from trainables.planning.compute import step_flops
from trainables.planning.placeholder_teacher import write_placeholder_teacher
from trainables.spec.trial import TrialSpec
from trainables.targets.room import FOLDER
from trainables.teachers.feeding import feeding
from trainables.teachers.pretrained.preprocessing import Preprocessing
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.teachers.teacher import load_teacher
from trainables.training import loop
from trainables.training.resolve import resolve
from trainables.training.workspace import EpochReport, Workspace

VIT = "vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 3}
TIMMS = Preprocessing("bicubic", 0.9, None, 224)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return dict(timm.create_model(VIT, num_classes=0, **OPTIONS).state_dict())


def found(path: Path, arch: str | None = VIT) -> Preprocessing:
    return feeding(arch, read_checkpoint(path, "f")).preprocessing


def saved(path: Path, content: Any, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(content, path, metadata) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def trial(checkpoint: Path, **fields: Any) -> TrialSpec:
    fields.setdefault("options", OPTIONS)
    data = fields.pop("data", {"image_size": 16})
    views = fields.pop("views", "digits")
    return resolve(
        {
            "method": "compress",
            "preset": "digits",
            "student": {"arch": "raykd/mlp", "options": {"side": data["image_size"], "hidden": [16]}},
            "teacher": {"arch": VIT, "checkpoint": str(checkpoint), **fields},
            "data": data,
            "views": views,
            "optim": {"batch_size": 64},
            "probe": {"score": "knn", "record": []},
            "epochs": 1,
        }
    )


def test_timm_s_configuration_unless_file_or_origin_say_more(state: Any, tmp_path: Path) -> None:
    assert found(saved(tmp_path / "t.pth", state)) == TIMMS
    dino = Preprocessing("bicubic", 0.875, "rgb", 224)
    assert found(saved(tmp_path / "dino_vittiny16_pretrain.pth", state)) == dino
    assert found(saved(tmp_path / "vit_tiny_patch16_224.augreg_in21k.pth", state)) == TIMMS
    told = argparse.Namespace(
        model=VIT, crop_pct=0.95, interpolation="bilinear", img_size=64, mean=None, std=None
    )
    args = saved(tmp_path / "model_best.pth.tar", {"state_dict": state, "args": told})
    assert found(args) == Preprocessing("bilinear", 0.95, None, 64)
    strange = argparse.Namespace(
        model=VIT, crop_pct=[2], interpolation=np.ones(3), img_size="s", input_size=()
    )
    assert found(saved(tmp_path / "odd.pth.tar", {"state_dict": state, "args": strange})) == TIMMS
    untold = argparse.Namespace(
        model=VIT, crop_pct=None, interpolation="", img_size=None, mean=None, std=None
    )
    assert found(saved(tmp_path / "last.pth.tar", {"state_dict": state, "args": untold})) == TIMMS
    assert found(tmp_path / "t.pth", None) == Preprocessing()


def test_other_origins(tmp_path: Path) -> None:
    resnet = timm.create_model("resnet18", num_classes=0).state_dict()
    moco = {f"module.encoder_q.{name}": value for name, value in resnet.items()}
    path = saved(tmp_path / "moco.pth.tar", {"state_dict": moco})
    assert found(path, "resnet18") == Preprocessing("bilinear", 0.875, "rgb", 224)
    assert found(path, "torchvision/resnet18")[:3] == ("bilinear", 0.875, "rgb")
    own = saved(tmp_path / "best.safetensors", resnet, epoch="3", score="81.0", trial="0123abcd")
    assert found(own, "resnet18")[:3] == ("bilinear", "data", "rgb"), (
        "it saw the evaluation views of its data"
    )
    bare = saved(tmp_path / "v.pth", {"layer1.0.conv1.weight": torch.ones(1)})
    from torchvision.models import EfficientNet_B1_Weights

    does = EfficientNet_B1_Weights.IMAGENET1K_V1.transforms()
    said = feeding("torchvision/efficientnet_b1", read_checkpoint(bare, "f")).preprocessing
    assert said == Preprocessing(
        does.interpolation.value, does.crop_size[0] / does.resize_size[0], "rgb", 240
    )


@pytest.mark.parametrize(
    "name, config, want",
    [
        ("config.json",
         {"pretrained_cfg": {"crop_pct": 0.8, "interpolation": "bilinear", "input_size": [3, 48, 48]}},
         Preprocessing("bilinear", 0.8, None, 48)),
        ("open_clip_config.json", {"preprocess_cfg": {"size": 64, "interpolation": "bilinear"}},
         Preprocessing("bilinear", 1.0, None, 64)),
        ("preprocessor_config.json",
         {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "resample": 2,
          "do_flip_channel_order": True},
         Preprocessing("bilinear", 0.875, "bgr", 56)),
        ("preprocessor_config.json",
         {"size": {"height": 64, "width": 64}, "resample": 3, "do_center_crop": False},
         Preprocessing("bicubic", 1.0, None, 64)),
        ("preprocessor_config.json", {"size": "large", "resample": [7], "crop_size": -1}, TIMMS),
    ],
)  # fmt: skip
def test_a_hub_s_folder(name: str, config: Any, want: Preprocessing, state: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "hub" / "pytorch_model.bin", state)
    (tmp_path / "hub" / name).write_text(
        json.dumps({**config, "architecture": VIT} if name == "config.json" else config)
    )
    assert found(path) == want


def test_what_is_found_fills_what_is_not_written_and_is_in_the_identity(state: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", state)
    own, student_s = trial(path), trial(path, interpolation="bilinear", crop_share="data")
    assert own.teacher is not None and student_s.teacher is not None
    assert own.teacher.inputs[1:] == ("rgb", "bicubic", 0.9, None)
    assert student_s.teacher.inputs[1:] == ("rgb", "bilinear", None, None)
    others = [
        trial(path, **fields)
        for fields in (
            {"crop_share": 1.0},
            {"channels": "bgr"},
            {"interpolation": "bilinear"},
            {"image_size": 32},
        )
    ]
    assert len({one.signature() for one in (own, student_s, *others)}) == 6
    # What is said explicitly, and says nothing new, changes no name.
    assert trial(path, channels="rgb", interpolation="bicubic", crop_share=0.9).signature() == own.signature()
    assert trial(path, image_size=16).signature() == own.signature()
    for one in (own, student_s, *others):
        assert resolve(one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    "fields, where, words",
    [
        ({"channels": "grb"}, "teacher.channels", "Did you mean 'rgb'"),
        ({"interpolation": "cubic"}, "teacher.interpolation", "bicubic"),
        ({"crop_share": 0}, "teacher.crop_share", "greater than 0"),
        ({"crop_share": 87.5}, "teacher.crop_share", "less than or equal to 1"),
        ({"crop_share": "all"}, "teacher.crop_share", "'data'"),
        ({"crop_share": True}, "teacher.crop_share", ""),
        ({"image_size": 0}, "teacher.image_size", ""),
        ({"image_size": "large"}, "teacher.image_size", ""),
        ({"image_size": [224, 224]}, "teacher.image_size", ""),
        ({"img_size": 224}, "teacher.img_size", "image_size"),
        ({"data": {"image_size": 16, "crop_share": 2}}, "data.crop_share", "less than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    fields: dict[str, Any], where: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        trial(tmp_path / "nowhere.pth", **fields)
    assert caught.value.field == where and words in str(caught.value)


@pytest.mark.parametrize("field, value", [("image_size", 32), ("channels", "bgr"), ("crop_share", 0.9)])
def test_a_teacher_that_raykd_trains_takes_none(field: str, value: Any) -> None:
    teacher = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}, field: value}
    raw = {"method": "compress", "student": {"arch": "test_efficientnet"}, "teacher": teacher, "epochs": 1}
    with pytest.raises(UserError, match=rf"teacher\.{field}: goes with `checkpoint`"):
        resolve(raw)


# --- a teacher of another size ------------------------------------------------------------------------------


def test_a_network_of_a_fixed_size_leads_to_its_field(state: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", state)
    with pytest.raises(UserError, match=r"cannot take images of 16 px.*`teacher: \{image_size: 224\}`"):
        TrialChecker().check(trial(path))
    TrialChecker().check(trial(path, image_size=32))
    with pytest.raises(UserError, match=r"teacher\.image_size.*patches of 8 pixels.*Expected 32 or 40"):
        TrialChecker().check(trial(path, image_size=36, options={**OPTIONS, "img_size": 36}))


def test_its_row_is_that_of_timm_s_own_transform(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes of the teacher's row see what timm's network and timm's transform make of the stored images."""
    share = {"image_size": 28, "margin": 4}
    asked = trial(saved(tmp_path / "t.pth", state), image_size=56, crop_share=0.875, data=share,
                  options={**OPTIONS, "img_size": 56})  # fmt: skip
    place = Workspace(tmp_path / "trial", tmp_path / "cache", tmp_path / "teachers")
    seen: list[torch.Tensor] = []
    encoded = evaluate.Examiner.encoded

    def kept(self: Any, encode: Any, images: Any, ids: np.ndarray) -> torch.Tensor:
        seen.append(encoded(self, encode, images, ids))
        return seen[-1]

    monkeypatch.setattr(evaluate.Examiner, "encoded", kept)
    reports: list[EpochReport] = []
    references.teacher(asked, lambda report: bool(reports.append(report)), place)
    data = open_data(asked.data, place.cache)
    assert asked.teacher is not None
    model: Any = load_teacher(asked.teacher, tmp_path / "t.pth").backbone.model
    transform: Any = timm.data.create_transform(
        (3, 56, 56), crop_pct=0.875, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    pixels = data.train.take(data.probe_ids[:16]).permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        want = model(torch.stack([transform(Image.fromarray(one)) for one in pixels]))
        bare = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)[..., 2:-2, 2:-2]
                     .repeat_interleave(2, 2).repeat_interleave(2, 3))  # fmt: skip
    got = seen[0][:16]
    assert (got - want).norm() < 0.1 * (want - bare).norm() + 0.02 * want.norm()
    assert reports[0].metrics["score"] > 0


def test_flops_are_those_of_its_size(state: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", state)
    small, large = (
        step_flops(trial(path, image_size=size, options={**OPTIONS, "img_size": size})) for size in (16, 64)
    )
    extra = large - small
    patches = ((64 // 8) ** 2 - (16 // 8) ** 2) * 64  # more of them, in the images of a step
    linear = 2 * (3 * 8 * 8 * 24 + 12 * 24 * 24)  # operations of the layers that see one patch
    assert extra == pytest.approx(patches * linear, rel=0.01)


@pytest.mark.parametrize(
    "views, fields", [("imagenet", {"image_size": 16, "margin": 16}), ("digits", {"image_size": 16})]
)
def test_shared_answers_are_the_same_bits(views: str, fields: Any, state: Any, tmp_path: Path) -> None:
    """Rendered for the teacher from the crop, or enlarged for it: by a step as by who fills the store."""
    asked = trial(saved(tmp_path / "t.pth", state), image_size=32, data=fields, views=views)

    def trained(name: str, **room: Any) -> dict[str, float]:
        place = Workspace(tmp_path / name, tmp_path / "cache", tmp_path / "teachers", **room)
        reports: list[EpochReport] = []
        loop.train(asked, lambda report: bool(reports.append(report)), place)
        return {k: v for k, v in reports[-1].metrics.items() if k not in ("images_per_s", "train_s")}

    assert trained("alone") == trained("filled", targets="auto")
    assert list((tmp_path / "cache" / FOLDER).rglob("*")), "nothing was kept"


def test_a_plan_without_the_file_has_a_network_of_that_size(state: Any, tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "img_size"}
    data = {"image_size": 16, "keep": "jpeg", "short_side": 24}
    asked = trial(saved(tmp_path / "t.pth", state), image_size=32, options=options, data=data)
    write_placeholder_teacher([asked], tmp_path / "placeholder.safetensors")
    assert asked.teacher is not None
    instead = load_teacher(asked.teacher, tmp_path / "placeholder.safetensors").backbone.model
    real = load_teacher(asked.teacher, tmp_path / "t.pth").backbone.model
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (instead, real)]
    assert shapes[0] == shapes[1] and shapes[0]["pos_embed"][1] == 17


def test_too_few_stored_pixels_are_said_with_what_helps(state: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", state)
    asked = trial(path, image_size=32)
    (said,) = [text for text in TrialChecker().remarks(asked) if text.startswith("teacher.image_size")]
    assert "sees 32 px, and images are prepared with 16" in said and "margin: 21, crop_share: 1.0" in said
    mended = trial(path, image_size=32, data={"image_size": 16, "margin": 21, "crop_share": 1.0})
    assert not [text for text in TrialChecker().remarks(mended) if text.startswith("teacher.image_size")]
