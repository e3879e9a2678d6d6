"""Teachers: a frozen backbone and, if the checkpoint has them, its projection head and its classifier.

A teacher comes from a checkpoint of any origin in `pretrained.layouts`, or raykd trains it on the same data.
raykd's own file is safetensors with `backbone.*`, `head.*` and `classifier.*`; its metadata contain the
architecture.

    load_teacher(TeacherSpec(arch="resnet50"), Path("moco_v2_800ep.pth.tar"))
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, build_backbone
from trainables.networks.sized import network_of
from trainables.spec.inputs import Inputs
from trainables.spec.trial import ModelSpec, TeacherSpec
from trainables.teachers.feeding import completed, feeding
from trainables.teachers.fill import fill_backbone, load_classifier, load_head
from trainables.teachers.pretrained.read import CheckpointFacts, ReadCheckpoint, read_checkpoint

# What is asked about whole images: the name of a function of `Teacher`.
What: TypeAlias = Literal["features", "embed", "logits"]


class Ask(NamedTuple):
    """What is asked, about which view, and which of a trial's teachers is asked."""

    what: What
    view: int
    teacher: int = 0


class Teacher(nn.Module):
    """A frozen network: no gradient, no change, always in eval mode.

    `batch_norm="batch"` normalises by the statistics of each batch instead of the running statistics. The
    code of DisCo and RETRO does this by leaving the teacher in train mode, which also changes the running
    statistics. Here these are removed, because nothing reads them.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module | None,
        batch_norm: str = "eval",
        sha256: str = "",
        classifier: nn.Linear | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = classifier  # over the backbone's features
        self.sha256 = sha256  # of the checkpoint file
        self.batch_norm = batch_norm
        self.weight = weight  # of its losses, beside other teachers
        self.feature_dim = backbone.feature_dim
        self.head_dim = 0  # 0 without a head
        self.embed_dim = backbone.feature_dim
        self.requires_grad_(False)
        self.eval()
        if batch_norm == "batch":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    # Without running statistics torch uses the batch's, in eval mode too.
                    module.track_running_stats = False
                    module.running_mean = module.running_var = module.num_batches_tracked = None
        if head is not None:
            with torch.no_grad():
                self.head_dim = self.embed_dim = head(torch.zeros(2, self.feature_dim)).shape[1]

    def train(self, mode: bool = True) -> Teacher:
        """Keep eval mode, whatever `mode` is."""
        super().train(False)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, feature_dim)."""
        features: Tensor = self.backbone(images)
        return features

    @torch.no_grad()
    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> (B, feature_dim) and each stage's map (B, C, h, w), the deepest last."""
        return self.backbone.with_maps(images)

    @torch.no_grad()
    def features_and_last_maps(self, images: Tensor, count: int = 1) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> (B, feature_dim) and the last `count` maps; see `Backbone.with_last_maps`."""
        return self.backbone.with_last_maps(images, count)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, embed_dim): the head's output, not normalised; without a head the features."""
        features = self.features(images)
        if self.head is None:
            return features
        embedding: Tensor = self.head(features)
        return embedding

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes): the classifier's output. `UserError` without a classifier."""
        if self.classifier is None:
            raise UserError("teacher", "has no classifier")
        logits: Tensor = self.classifier(self.backbone(images))
        return logits

    def width(self, what: What) -> int:
        """Numbers of an answer; 0 where the teacher has no part that could give one."""
        classes = self.classifier.out_features if self.classifier is not None else 0
        return {"features": self.feature_dim, "embed": self.embed_dim, "logits": classes}[what]

    def kind(self, what: What) -> What:
        """What answers to `what` are: without a head an embedding is the features."""
        return "features" if what == "embed" and self.head is None else what

    def answer(self, what: What, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D): what the function of this name returns, contiguous.

        A ViT's class token is a view of all tokens. Batch norm gives other bits for such a view than for its
        copy in a store, and who keeps the view keeps all tokens in memory.
        """
        answer: Tensor = getattr(self, what)(images)
        return answer.contiguous()


def load_teacher(spec: TeacherSpec, path: Path) -> Teacher:
    """The teacher that `spec` describes, on the CPU, read from the file at `path`.

    Raises `UserError` for a file that cannot be read or does not fit the architecture.
    """
    read = read_checkpoint(path, "teacher.checkpoint")
    backbone = build_backbone(network_of(spec), 0, "teacher")
    backbone.feed(completed(spec, feeding(spec.arch, read)).inputs)  # a spec made by hand may lack some
    fill_backbone(backbone, read)
    head, classifier = load_head(backbone, read), load_classifier(backbone, read)
    return Teacher(backbone, head, spec.batch_norm, read.facts.sha256, classifier, spec.weight)


FIT = "`teacher: {head: fit}` (a head is fitted to its backbone before the trials)"


class Lack(NamedTuple):
    """A part of a teacher that a method needs and a file lacks, as the parts of an error message."""

    what: str  # "needs ..., and ..."
    expected: str


def lacks(facts: CheckpointFacts, needs: frozenset[str], classes: int = 0) -> Lack | None:
    """The first of a method's `needs` that the file lacks; None if it lacks none.

    `classes` is the number of classes in the data; 0 if it does not matter.
    """
    if "teacher_head" in needs and facts.head_problem:
        return Lack(
            f"needs the teacher's projection head, and the file's cannot be read: {facts.head_problem}",
            f"another checkpoint, a method that learns from features, or {FIT}",
        )
    if "teacher_head" in needs and not facts.head:
        return Lack(
            "needs the teacher's projection head, and the file holds none",
            f"a self-supervised checkpoint with its head (MoCo, SwAV, DINO, raykd's own ...), or {FIT}",
        )
    if "teacher_classifier" in needs and not facts.classes:
        return Lack(
            "needs the teacher's classifier, and the file has none that is one linear layer on its features",
            "a supervised checkpoint with its classifier (timm, torchvision, DeiT, raykd's own)",
        )
    if "teacher_classifier" in needs and classes and facts.classes != classes:
        return Lack(
            f"needs a classifier for the data's {classes} classes, and the file's is for {facts.classes}",
            "`teacher_classifier: fitted`, or 'auto'",
        )
    return None


def verify(
    read: ReadCheckpoint, model: ModelSpec, field: str = "teacher", image_size: int | None = None
) -> CheckpointFacts:
    """The facts of a checkpoint that fits `model`; `classes` is 0 if its classifier cannot be used.

    `image_size`: that of the images that the network sees, where it is not the one it was made for. Raises
    `UserError` at `field` for a checkpoint that does not fit.
    """
    backbone = build_backbone(model, 0, field)
    backbone.feed(Inputs(image_size=image_size))
    fill_backbone(backbone, read)
    load_head(backbone, read)
    usable = load_classifier(backbone, read) is not None
    return read.facts if usable else dataclasses.replace(read.facts, classes=0)
