"""Teachers: a frozen backbone with, where there are, its projection head and its classifier.

They come from a checkpoint of any origin in `checkpoint_layouts`, or from a training on the same data, whose
file is raykd's own: safetensors with `backbone.*`, `head.*` and `classifier.*`, and the architecture in the
metadata.

    load_teacher(TeacherSpec(arch="resnet50", checkpoint=Path("moco_v2_800ep.pth.tar")), folder, trial)
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.arch_guess import twins_remark
from trainables.backbones import Backbone, build_backbone, check_arch
from trainables.checkpoint_file import CheckpointFacts, ReadCheckpoint, read_checkpoint
from trainables.checkpoint_pixels import feeding
from trainables.errors import UserError
from trainables.method import TAUGHT, Method, load_method, methods
from trainables.parts.heads import describe_head
from trainables.seal import save_sealed
from trainables.teacher_file import fill_backbone, load_classifier, load_head
from trainables.trial import ModelSpec, TeacherSpec, TrialSpec


class Teacher(nn.Module):
    """A network that teaches: without gradient, never changing, always in eval mode.

    `batch_norm="batch"` normalises by the statistics of each batch instead of the running ones. The code of
    DisCo and RETRO does so by leaving the teacher in train mode; here the running ones do not drift as well,
    since nothing reads them.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module | None,
        batch_norm: str = "eval",
        sha256: str = "",
        classifier: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = classifier  # over the backbone's features
        self.sha256 = sha256  # of the file it came from
        self.batch_norm = batch_norm
        self.feature_dim = backbone.feature_dim
        self.head_dim = 0  # 0 without a head
        self.requires_grad_(False)
        self.eval()
        if batch_norm == "batch":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    # Without running statistics torch takes the batch's, in eval mode too.
                    module.track_running_stats = False
                    module.running_mean = module.running_var = module.num_batches_tracked = None
        if head is not None:
            with torch.no_grad():
                self.head_dim = head(torch.zeros(2, self.feature_dim)).shape[1]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
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
    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, head_dim): the head's output, not normalised."""
        if self.head is None:
            raise UserError("teacher", "has no projection head")
        embedding: Tensor = self.head(self.backbone(images))
        return embedding

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes) by the classifier that it was trained with."""
        if self.classifier is None:
            raise UserError("teacher", "has no classifier")
        logits: Tensor = self.classifier(self.backbone(images))
        return logits


def load_teacher(spec: TeacherSpec, folder: Path, trial: TrialSpec) -> Teacher:
    """The teacher of `trial`, on the CPU: from its checkpoint, or the file its training left in `folder`.

    Raises `UserError` for a file that cannot be read or does not fit the architecture.
    """
    path = spec.checkpoint
    if path is None:
        training = teacher_trial(trial)
        assert training is not None, "resolve() lets no teacher pass that has neither checkpoint nor training"
        path = teacher_file(training, folder)
    read = read_checkpoint(path, "teacher.checkpoint")
    backbone = build_backbone(ModelSpec(arch=spec.arch, options=spec.options), 0, "teacher")
    fill_backbone(backbone, read)
    # `resolve` has filled them in; a spec that was made by hand may name none.
    backbone.feed(feeding(spec.arch, read).normalisation if spec.mean is None else spec.normalisation)
    head, classifier = load_head(backbone, read), load_classifier(backbone, read)
    return Teacher(backbone, head, spec.batch_norm, read.facts.sha256, classifier)


def teacher_trial(trial: TrialSpec) -> TrialSpec | None:
    """The training that makes `trial`'s teacher; None where it has none or takes a checkpoint.

    It takes over the trial's data and nothing else, so that no axis of a search makes a teacher of its own.
    """
    if trial.teacher is None or trial.teacher.train is None:
        return None
    from trainables.resolve import resolve

    train = trial.teacher.train
    raw: dict[str, Any] = {
        **train.model_dump(exclude={"preset"}, exclude_defaults=True),
        "method": train.method,
        "student": {"arch": trial.teacher.arch, "options": trial.teacher.options},
        "data": trial.data.model_dump(),
        # Nobody judges a teacher on its way, and its data may have no labels.
        "probe": {"score": "rankme", "record": (), "every": train.epochs},
    }
    if train.preset is not None:
        raw["preset"] = train.preset
    return resolve(raw, "teacher.train")


def teacher_file(training: TrialSpec, folder: Path) -> Path:
    """Where the teacher that `training` makes is kept."""
    return folder / f"{training.signature()}.safetensors"


def save_teacher(method: Method, path: Path, training: TrialSpec | None = None) -> None:
    """Write a trained method's student as a teacher, with its own head and classifier where it has them.

    `training` goes into the file, for whoever wonders where it came from.
    """
    tensors = {f"backbone.{name}": value for name, value in method.student.model.state_dict().items()}
    metadata = {
        "format": "raykd",
        "method": method.name,
        "arch": method.student.arch,
        "options": json.dumps(method.student.options, sort_keys=True),
    }
    if training is not None:
        metadata["trial"] = training.model_dump_json()
    head = method.own_head()
    if head is not None:
        tensors.update({f"head.{name}": value for name, value in head.state_dict().items()})
        metadata["head"] = json.dumps(describe_head(head))
    classifier = method.own_classifier()
    if classifier is not None:
        tensors.update({f"classifier.{name}": value for name, value in classifier.state_dict().items()})
    save_sealed(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path, metadata
    )


def inspect_checkpoint(path: Path) -> CheckpointFacts:
    """What a file holds: origin, roles, head, hash. Raises `UserError` if it cannot be read."""
    return read_checkpoint(path, "teacher.checkpoint").facts


def check_teacher(
    spec: TeacherSpec | None, needs: frozenset[str], field: str = "teacher", classes: int = 0
) -> None:
    """Raise `UserError` for a teacher that cannot be had, or lacks what a method `needs` of it.

    `classes` of the data, 0 where they do not matter.
    """
    if not needs & TAUGHT:
        return
    if spec is None:
        raise UserError(field, "is missing", expected="`{arch: NAME, checkpoint: FILE}` or `{arch, train}`")
    check_arch(spec.arch, field, spec.options)
    if (spec.checkpoint is None) == (spec.train is None):
        has = "neither `checkpoint` nor" if spec.train is None else "both `checkpoint` and"
        raise UserError(field, f"has {has} `train`", expected="one of them")
    if spec.checkpoint is not None:
        facts = _verified(spec, f"{field}.checkpoint", field)
        if lacking := lacks(facts, needs, classes):
            raise UserError(
                f"{field}.checkpoint",
                f"this method {lacking.what}; roles found: {facts.roles_text()}"
                + (f"; {facts.remark}" if facts.remark else ""),
                value=str(spec.checkpoint),
                expected=lacking.expected,
            )
    elif spec.train is not None:
        method = load_method(spec.train.method, f"{field}.train.method")
        for need, hook, what in (
            ("teacher_head", "own_head", "projection head to reuse"),
            ("teacher_classifier", "own_classifier", "classifier"),
        ):
            if need in needs and not _overrides(method, hook):
                raise UserError(
                    f"{field}.train.method",
                    f"trains no {what}",
                    value=method.name,
                    choices=[n for n, m in methods().items() if _overrides(m, hook) and not m.needs & TAUGHT],
                )


class Lack(NamedTuple):
    """Something of a teacher that a method needs and a file has not."""

    what: str  # "needs ..., and ..."
    expected: str


def lacks(facts: CheckpointFacts, needs: frozenset[str], classes: int = 0) -> Lack | None:
    """What the file lacks of what a method `needs`; None where it has all.

    `classes` of the data, 0 where they do not matter.
    """
    if "teacher_head" in needs and facts.head_problem:
        return Lack(
            f"needs the teacher's projection head, and the file's cannot be read: {facts.head_problem}",
            "another checkpoint, or a method that learns from features",
        )
    if "teacher_head" in needs and not facts.head:
        return Lack(
            "needs the teacher's projection head, and the file holds none",
            "a self-supervised checkpoint with its head (MoCo, SwAV, DINO, raykd's own ...)",
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


def _verified(spec: TeacherSpec, where: str, field: str) -> CheckpointFacts:
    """`verify` for the checkpoint of `spec`, read once however many trials are checked.

    Raises `UserError` at `where` where it cannot be read, too.
    """
    assert spec.checkpoint is not None
    path = spec.checkpoint.expanduser()
    options = json.dumps(spec.options, sort_keys=True, default=str)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    key = (path.resolve(), stamp, spec.arch, options)
    if key not in _seen:
        model = ModelSpec(arch=spec.arch, options=spec.options)
        _seen[key] = verify(read_checkpoint(path, where), model, field)
    return _seen[key]


_seen: dict[tuple[object, ...], CheckpointFacts] = {}


def teacher_remarks(spec: TeacherSpec | None, field: str = "teacher") -> list[str]:
    """What can be run and may not be meant: a checkpoint that does not say which of several networks it is.

    Raises `UserError` where it cannot be read.
    """
    if spec is None or spec.checkpoint is None:
        return []
    remark = twins_remark(_verified(spec, f"{field}.checkpoint", field), spec.arch)
    return [f"{field}.arch: {remark}"] if remark else []


def verify(read: ReadCheckpoint, model: ModelSpec, field: str = "teacher") -> CheckpointFacts:
    """The facts of a checkpoint that fits `model`, its classifier counted only where it can be used.

    Raises `UserError` at `field` for one that does not fit.
    """
    backbone = build_backbone(model, 0, field)
    fill_backbone(backbone, read)
    load_head(backbone, read)
    usable = load_classifier(backbone, read) is not None
    return read.facts if usable else dataclasses.replace(read.facts, classes=0)


def _overrides(method: type[Method], hook: str) -> bool:
    """Does this method have its own `own_head` or `own_classifier`?"""
    return getattr(method, hook) is not getattr(Method, hook)
