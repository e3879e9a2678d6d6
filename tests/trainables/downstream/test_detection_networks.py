"""Networks in detectors: their maps, what they are shown, where they are split, what is fixed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from annotated import task, trial, write_coco
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.errors import UserError
from trainables.downstream.detection import masks
from trainables.downstream.detection.check import check_detection
from trainables.downstream.detection.detectors import build_detector
from trainables.downstream.detection.maps import for_pyramid, split, stage_maps
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.inputs import Inputs
from trainables.spec.normalisation import Normalisation
from trainables.spec.suite_detection import DetectionTask
from trainables.spec.trial import ModelSpec


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "scenes")


def network(arch: str, **options: object) -> Backbone:
    return build_backbone(ModelSpec(arch=arch, options=options), 0).eval()


STRIDES = {
    "test_resnet": (4, 8, 16, 32),
    "mobilenetv3_small_050": (4, 8, 16, 32),
    "test_efficientnet": (4, 8, 16, 32),
    "torchvision/mobilenet_v2": (4, 8, 16, 32),
    "torchvision/shufflenet_v2_x0_5": (4, 8, 16, 32),
    "raykd/resnet9": (1, 2, 4, 8),
    "regnetx_002": (4, 8, 16, 32),
    "test_convnext": (4, 8, 16, 32),
}


@pytest.mark.parametrize("arch", STRIDES)
def test_maps_are_those_of_the_network_at_any_sides(arch: str) -> None:
    model = network(arch)
    maps = stage_maps(model)
    assert maps.strides == STRIDES[arch]
    images = torch.rand(1, 3, 96, 160)
    with torch.no_grad():
        found = maps(images)
        _, whole = model.with_maps(images)
    assert all(torch.equal(one, other) for one, other in zip(found, whole, strict=True))
    assert maps.out == [one.shape[1] for one in found]
    used = for_pyramid(maps, model).strides
    assert used == tuple(stride for stride in STRIDES[arch] if stride >= 4)


def test_nothing_behind_the_last_map_is_computed() -> None:
    model = network("mobilenetv3_small_050")
    seen: list[str] = []
    for name in ("blocks.5", "conv_head", "global_pool"):
        model.model.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    with torch.no_grad():
        stage_maps(model)(torch.rand(1, 3, 64, 64))
        assert seen and set(seen) == {"blocks.5"}
        model(torch.rand(1, 3, 64, 64))  # and afterwards it computes all again
    assert "conv_head" in seen


@pytest.mark.parametrize("arch", [arch for arch in STRIDES if "shuffle" not in arch])
def test_a_network_is_split_before_its_last_stage(arch: str) -> None:
    model = network(arch)
    maps = stage_maps(model)
    before, tail = split(maps, model)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        *_, last = maps(images)
        again = tail(before(images)[0])
    torch.testing.assert_close(again, last, rtol=1e-4, atol=1e-5)
    own = {id(p) for p in model.model.parameters()}
    assert {id(p) for p in tail.parameters()} <= own  # the network's, not copies


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (Inputs(), {}),
        (Inputs(Normalisation((0.5, 0.4, 0.3), (0.5, 0.25, 0.2))), {}),
        (Inputs(Normalisation((0.5, 0.4, 0.3), (0.5, 0.25, 0.2)), "bgr", image_size=32), {}),
        (Inputs(), {"in_chans": 1}),
    ],
)
def test_the_network_sees_pixels_as_its_weights_do(scenes: Path, inputs: Inputs, options: dict) -> None:
    """The detector's own normalisation and the network's conversion together: (pixel - mean) / deviation."""
    model = network("test_resnet", **options)
    model.feed(inputs)
    seen: list[torch.Tensor] = []
    detector = build_detector(task(scenes), model, 10).eval()
    model.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        detector([image])
    if options:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        mean, std = model.pixels
        wanted = ((image * weights).sum(0, keepdim=True) - mean[0]) / std[0]
    else:
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in inputs.normalisation)
        wanted = (image - mean) / std
        wanted = wanted.flip(0) if inputs.channels == "bgr" else wanted
    torch.testing.assert_close(seen[0][0], wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("arch", "fields", "problem"),
    [
        ("test_vit", {}, "takes images of one size only|no pyramid"),
        ("raykd/mlp_32", {}, "has no feature maps"),
        ("swin_tiny_patch4_window7_224", {}, "takes images of one size only"),
        ("torchvision/swin_t", {"neck": "c4"}, "cannot be split before its last stage.*`neck: fpn`"),
        ("torchvision/shufflenet_v2_x0_5", {"neck": "c4"}, None),
        ("torchvision/swin_t", {}, None),
        (
            "test_resnet",
            {"anchors": [8, 16]},
            "one for each level.*5 sides, for the strides 4, 8, 16, 32, 64",
        ),
        ("test_resnet", {"anchors": [8, 16], "neck": "c4"}, None),
        ("test_resnet", {"frozen_stages": 4}, "leaves no stage"),
        ("raykd/resnet9", {"anchors": [16, 32, 64]}, None),
        ("test_resnet", {"batch": 3, "accumulate": 3}, "cannot be divided.*a multiple of 6"),
    ],
)
def test_what_is_refused_before_machine_time(
    scenes: Path, arch: str, fields: dict, problem: str | None
) -> None:
    workers = 2 if "batch" in fields else 1
    if problem is None:
        check_detection(task(scenes, **fields), trial(arch), workers)
        return
    with pytest.raises(UserError, match=problem):
        check_detection(task(scenes, **fields), trial(arch), workers)


def test_without_pycocotools_it_says_what_to_install(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.cocoeval", None)
    with pytest.raises(UserError, match=re.escape("`pip install raykd[detection]`")):
        masks.check_pycocotools()
    with pytest.raises(UserError, match="task: needs the package pycocotools"):
        check_detection(task(scenes), trial())


def norms(module: nn.Module) -> list[_BatchNorm]:
    return [one for one in module.modules() if isinstance(one, _BatchNorm)]


def built(scenes: Path, model: Backbone, **fields: object) -> tuple[DetectionTask, nn.Module]:
    spec = task(scenes, **fields)
    return spec, build_detector(spec, model, 10).train()


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_frozen_batch_norms_and_stages_stay_as_they_are(scenes: Path, neck: str) -> None:
    model = network("test_resnet")
    _, detector = built(scenes, model, neck=neck, batch_norm="frozen", head_norm=True, frozen_stages=1)
    assert norms(model.model) and not any(one.training for one in norms(model.model))
    new = [one for one in norms(detector) if one not in norms(model.model)]
    assert new and all(one.training for one in new)
    trained = {name for name, p in model.model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("conv1", "layer1")) for name in trained)
    assert any(name.startswith("layer2") for name in trained) and "layer2.0.bn1.weight" not in trained
    detector.eval()
    detector.train()
    assert not any(one.training for one in norms(model.model))


def test_what_no_map_depends_on_is_not_trained(scenes: Path) -> None:
    model = network("mobilenetv3_small_050")
    _, detector = built(scenes, model)
    idle = {name for name, p in model.model.named_parameters() if not p.requires_grad}
    assert idle and all(name.startswith("conv_head") for name in idle)
    image, target = (
        torch.rand(3, 64, 64),
        {"boxes": torch.tensor([[5.0, 5, 30, 40]]), "labels": torch.tensor([3])},
    )
    sum(detector([image], [target]).values()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in detector.parameters())
