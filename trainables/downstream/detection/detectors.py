"""torchvision's Faster and Mask R-CNN around a network: with a feature pyramid (FPN), or split (C4).

C4 (Ren et al. 2015, as detectron2 builds it): proposals and regions come from the map before the last stage.
The last stage runs on each region of 14 x 14 positions, and its mean is classified. FPN: Lin et al. 2017.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from trainables.core.distributed import convert_sync_batch_norm
from trainables.core.errors import UserError
from trainables.core.workers import world_size
from trainables.downstream.detection.maps import StageMaps, for_pyramid, split, stage_maps, weights_of
from trainables.networks.backbones import Backbone, noise
from trainables.spec.normalisation import IMAGENET
from trainables.spec.suite_detection import DetectionTask

_RATIOS = (0.5, 1.0, 2.0)
_C4_ANCHORS = (32, 64, 128, 256, 512)
_MASK_WIDTH = 256  # of C4's mask head
_DIVISIBLE = 32  # sides of a batch, pixels


class Detector(nn.Module):
    """A detector whose fixed parts stay as they are in training.

    In training a call gives the losses by name, in eval mode what was found in each image, as torchvision's.
    """

    def __init__(self, rcnn: FasterRCNN, fixed: list[_BatchNorm]) -> None:
        super().__init__()
        self.rcnn = rcnn
        self._fixed = fixed  # batch norms with running statistics, also in training

    def train(self, mode: bool = True) -> Detector:
        """Training mode for all but the fixed batch norms."""
        super().train(mode)
        for norm in self._fixed:
            norm.eval()
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Images (3, H, W) in 0..1, of any sizes."""
        return self.rcnn(images, targets)


class _Pyramid(nn.Module):
    """Maps of a network -> those of a pyramid, and one of half the size, by name."""

    def __init__(self, maps: StageMaps, channels: int, norm: bool) -> None:
        super().__init__()
        self.maps = maps
        norm_layer = nn.BatchNorm2d if norm else None
        self.fpn = FeaturePyramidNetwork(maps.out, channels, LastLevelMaxPool(), norm_layer)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        named = OrderedDict((str(at), one) for at, one in enumerate(self.maps(images)))
        found: dict[str, Tensor] = self.fpn(named)
        return found


class _OneMap(nn.Module):
    """The single map of a split network."""

    def __init__(self, maps: StageMaps) -> None:
        super().__init__()
        self.maps = maps
        (self.out_channels,) = maps.out

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.maps(images)[0]}


class _Pooled(nn.Module):
    """The last stage on regions (R, C, 14, 14), and the mean over positions: (R, D)."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, regions: Tensor) -> Tensor:
        pooled: Tensor = self.tail(regions).mean((2, 3))
        return pooled


def build_detector(task: DetectionTask, network: Backbone, classes: int) -> Detector:
    """The detector of a task around `network`, which it contains; `classes` without the background.

    New layers are drawn from the global generator. Raises `UserError` for a network that cannot be the
    backbone, and for anchors that do not fit.
    """
    maps = stage_maps(network)
    own: dict[str, Any] = {
        "min_size": task.min_size,
        "max_size": task.max_size,
        "size_divisible": max(_DIVISIBLE, *maps.strides),
        "image_mean": list(IMAGENET.mean),
        "image_std": list(IMAGENET.std),
        "box_batch_size_per_image": task.region_samples,
    }
    build = _fpn if task.neck == "fpn" else _c4
    backbone, parts = build(task, network, maps, classes)
    kept = _kept(task.proposals) if task.proposals else {}
    kind = MaskRCNN if task.detector == "mask_rcnn" else FasterRCNN
    rcnn = kind(backbone, **{**own, **parts, **kept})
    if task.batch_norm == "sync" and world_size() > 1:
        try:
            convert_sync_batch_norm(rcnn)
        except UserError as error:
            raise error.at("batch_norm", expected="train or frozen, or another network") from None
    return Detector(rcnn, _fix(task, network, maps))


def _kept(proposals: int) -> dict[str, int]:
    """Regions before and after the suppression of doubles; twice as many before, as in detectron2's FPN."""
    in_test = min(proposals, 1000)
    return {
        "rpn_pre_nms_top_n_train": 2 * proposals,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_pre_nms_top_n_test": 2 * in_test,
        "rpn_post_nms_top_n_test": in_test,
    }


def _fpn(
    task: DetectionTask, network: Backbone, maps: StageMaps, classes: int
) -> tuple[nn.Module, dict[str, Any]]:
    used = for_pyramid(maps, network)
    backbone = _Pyramid(used, task.fpn_channels, task.head_norm)
    strides = (*used.strides, 2 * used.strides[-1])
    sizes = task.anchors or tuple(8 * stride for stride in strides)
    if len(sizes) != len(strides):
        expected = f"{len(strides)} sides, for the strides {', '.join(map(str, strides))}"
        raise UserError("anchors", "are not one for each level", value=list(sizes), expected=expected)
    names = [str(at) for at in range(len(used.strides))]
    parts: dict[str, Any] = {
        "rpn_anchor_generator": _anchors([(side,) for side in sizes]),
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2),
        "box_head": TwoMLPHead(task.fpn_channels * 7 * 7, task.head_width),
        "box_predictor": FastRCNNPredictor(task.head_width, classes + 1),
    }
    if task.detector == "mask_rcnn":
        norm = nn.BatchNorm2d if task.head_norm else None
        parts |= {
            "mask_roi_pool": MultiScaleRoIAlign(names, 14, 2),
            "mask_head": MaskRCNNHeads(task.fpn_channels, (task.fpn_channels,) * 4, 1, norm),
            "mask_predictor": MaskRCNNPredictor(task.fpn_channels, task.fpn_channels, classes + 1),
        }
    return backbone, parts


def _c4(
    task: DetectionTask, network: Backbone, maps: StageMaps, classes: int
) -> tuple[nn.Module, dict[str, Any]]:
    before, tail = split(maps, network)
    width = maps.out[-1]
    if task.head_norm:
        tail.append(nn.BatchNorm2d(width))
    parts: dict[str, Any] = {
        "rpn_anchor_generator": _anchors([task.anchors or _C4_ANCHORS]),
        "rpn_pre_nms_top_n_train": 12_000,  # of one map, where a pyramid has 2000 of each
        "rpn_pre_nms_top_n_test": 6_000,
        "box_roi_pool": MultiScaleRoIAlign(["0"], 14, 2),
        "box_head": _Pooled(tail),
        "box_predictor": FastRCNNPredictor(width, classes + 1),
    }
    if task.detector == "mask_rcnn":
        parts |= {
            "mask_roi_pool": MultiScaleRoIAlign(["0"], 14, 2),
            "mask_head": tail,
            "mask_predictor": MaskRCNNPredictor(width, _MASK_WIDTH, classes + 1),
        }
    return _OneMap(before), parts


def _anchors(sizes: list[tuple[int, ...]]) -> AnchorGenerator:
    return AnchorGenerator(tuple(sizes), (_RATIOS,) * len(sizes))


def _fix(task: DetectionTask, network: Backbone, maps: StageMaps) -> list[_BatchNorm]:
    """Take what is not trained out of the training; returns the batch norms that keep their statistics.

    Not trained are the stages that the task freezes, what of the network lies behind its last map, and, with
    `batch_norm: frozen`, the network's batch norms.
    """
    model = network.model
    if task.frozen_stages >= len(maps.stages):
        expected = f"fewer than its {len(maps.stages)} stages"
        raise UserError("frozen_stages", "leaves no stage", value=task.frozen_stages, expected=expected)
    images = noise(128, network.in_chans).to(next(model.parameters()).device)
    frozen = weights_of(model, maps.stages, task.frozen_stages, images)
    used = weights_of(model, maps.stages, len(maps.stages), images)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in used - frozen)
    fixed = []
    for name, module in model.named_modules():
        of_frozen = f"{name}.weight" in frozen
        if isinstance(module, _BatchNorm) and (task.batch_norm == "frozen" or of_frozen):
            fixed.append(module)
            module.requires_grad_(False)
    return fixed
