"""Teachers: a frozen backbone with, where there is one, the projection head it was trained with.

They come from a checkpoint of any origin in `checkpoint_layouts`, or from a training on the same data, whose
file is raykd's own: safetensors with `backbone.*` and `head.*`, and the architecture in the metadata.

    load_teacher(TeacherSpec(arch="resnet50", checkpoint=Path("moco_v2_800ep.pth.tar")), folder, trial)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.backbones import Backbone, build_backbone, check_arch, classifier_prefixes
from trainables.checkpoint_file import CheckpointFacts, ReadCheckpoint, read_checkpoint
from trainables.checkpoint_layouts import BACKBONE, CLASSIFIER, HEAD
from trainables.errors import UserError
from trainables.method import Method, load_method
from trainables.parts.heads import build_head, describe_head
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
        self.classifier = classifier
        self.sha256 = sha256  # of the file it came from
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
    _fill_backbone(backbone, read)
    return Teacher(backbone, _head(backbone, read), spec.batch_norm, read.facts.sha256)


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


def save_teacher(method: Method, path: Path) -> None:
    """Write a trained method's student, and its head if it has one of its own, as a teacher."""
    tensors = {f"backbone.{name}": value for name, value in method.student.model.state_dict().items()}
    metadata = {
        "format": "raykd",
        "method": method.name,
        "arch": method.student.arch,
        "options": json.dumps(method.student.options, sort_keys=True),
    }
    head = method.own_head()
    if head is not None:
        tensors.update({f"head.{name}": value for name, value in head.state_dict().items()})
        metadata["head"] = json.dumps(describe_head(head))
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path, metadata
    )


def inspect_checkpoint(path: Path) -> CheckpointFacts:
    """What a file holds: origin, roles, head, hash. Raises `UserError` if it cannot be read."""
    return read_checkpoint(path, "teacher.checkpoint").facts


def check_teacher(spec: TeacherSpec | None, needs: frozenset[str], field: str = "teacher") -> None:
    """Raise `UserError` for a teacher that cannot be had, or lacks what a method `needs` of it."""
    if not needs & {"teacher", "teacher_head"}:
        return
    if spec is None:
        raise UserError(field, "is missing", expected="`{arch: NAME, checkpoint: FILE}` or `{arch, train}`")
    check_arch(spec.arch, field, spec.options)
    if (spec.checkpoint is None) == (spec.train is None):
        has = "has neither" if spec.train is None else "has both"
        raise UserError(field, f"{has} `checkpoint` and `train`", expected="one of them")
    if spec.checkpoint is not None:
        facts = _verified(spec, f"{field}.checkpoint", field)
        if "teacher_head" in needs and not facts.head:
            raise UserError(
                f"{field}.checkpoint",
                "this method reuses the teacher's projection head, and the file holds none; "
                f"roles found: {facts.roles_text()}",
                value=str(spec.checkpoint),
                expected="a self-supervised checkpoint with its head (MoCo v1 or v2, raykd's own)",
            )
    elif spec.train is not None and "teacher_head" in needs:
        method = load_method(spec.train.method, f"{field}.train.method")
        if method.own_head is Method.own_head:
            raise UserError(
                f"{field}.train.method",
                "trains no projection head to reuse",
                value=method.name,
                expected="moco",
            )


_seen: dict[tuple[object, ...], CheckpointFacts] = {}


def _verified(spec: TeacherSpec, where: str, field: str) -> CheckpointFacts:
    """The facts of a checkpoint that fits its architecture; read once, however many trials are checked."""
    assert spec.checkpoint is not None
    path = spec.checkpoint.expanduser()
    options = json.dumps(spec.options, sort_keys=True, default=str)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    key = (path.resolve(), stamp, spec.arch, options)
    if key not in _seen:
        read = read_checkpoint(path, where)
        backbone = build_backbone(ModelSpec(arch=spec.arch, options=spec.options), 0, field)
        _fill_backbone(backbone, read)
        _head(backbone, read)
        _seen[key] = read.facts
    return _seen[key]


def _fill_backbone(backbone: Backbone, read: ReadCheckpoint) -> None:
    """Load the backbone: every weight of the file and of the architecture, or `UserError` and none."""
    facts = read.facts
    given = read.roles.get(BACKBONE, {})
    own = backbone.model.state_dict()
    arch = facts.arch
    said = f"; the file says it is {arch}" if arch and arch != backbone.arch else ""
    # Counters of batches, which old files lack and no result depends on.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in given]
    other = [name for name in needed if name in given and given[name].shape != own[name].shape]
    dropped = classifier_prefixes(backbone) if CLASSIFIER in facts.roles or facts.origin == "timm" else ()
    strange = [name for name in given if name not in own and not name.startswith(dropped or ("\0",))]
    if missing or other or strange:
        fitting = len(needed) - len(missing) - len(other)
        parts = [f"only {fitting} of {len(needed)} weights of {backbone.arch} are in the file"]
        if not missing and not other:
            parts = [f"the file holds more than {backbone.arch}"]
        if missing:
            parts.append(f"first missing: {missing[0]}")
        if other:
            first = other[0]
            shapes = f"{tuple(given[first].shape)} in the file, {tuple(own[first].shape)} needed"
            parts.append(f"first of another shape: {first}, {shapes}")
        if strange:
            parts.append(f"{len(strange)} it has no place for, first {strange[0]}")
        raise UserError(
            f"{backbone.field}.arch",
            "; ".join(parts) + f" ({read.path}, origin {facts.origin}, roles {facts.roles_text()}{said})",
            value=backbone.arch,
            expected="the architecture and options that the file was made with",
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in given:
                value.copy_(given[name])


def _head(backbone: Backbone, read: ReadCheckpoint) -> nn.Module | None:
    """The projection head in the file; None where there is none."""
    if not read.facts.head:
        return None
    head = build_head(read.facts.head)
    weights: Mapping[str, Tensor] = read.roles[HEAD]
    if len(read.facts.head) == 1:
        weights = {f"0.{name.removeprefix('0.')}": value for name, value in weights.items()}
    try:
        head.load_state_dict(weights)
        head(torch.zeros(2, backbone.feature_dim))
    except RuntimeError as error:
        raise UserError(
            f"{backbone.field}.checkpoint",
            f"its head does not fit {backbone.arch}, with features of {backbone.feature_dim}: "
            f"{str(error).strip().splitlines()[-1].strip()}",
            value=str(read.path),
        ) from None
    return head
