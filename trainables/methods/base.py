"""The contract of a distillation method, and the registry that defining a class fills.

A method is one file in `trainables/methods/`: its loss as a pure function, and a `Method` subclass that
wires student, teacher and loss together. The loop runs it:

    method = load_method("retro")(config, student, teacher, context)
    method.begin(images)            # anchors, a fitted classifier: what a method takes from the data
    losses = method(batch)          # under DDP and autocast
    losses.total.backward(); optimizer.step()
    method.after_step(progress)     # mean student, queue
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.data.encode import TrainingImages
from trainables.networks.backbones import Backbone, BackboneFacts
from trainables.spec.trial import Spec
from trainables.teachers.teacher import Teacher

# What a method may need, and how people call it.
NEEDS = {
    "teacher": "a teacher",
    "teacher_head": "a teacher with a projection head",
    "teacher_classifier": "a teacher with a classifier",
    "feature_maps": "feature maps of student and teacher",
    "labels": "labels",
}
TAUGHT = frozenset({"teacher", "teacher_head", "teacher_classifier"})


class MethodConfig(Spec):
    """Base of every method's hyperparameters. Each field has a default (the paper's) and a description."""


class Batch(NamedTuple):
    """This worker's share of one micro-batch, on the trial's device."""

    views: list[Tensor]  # each (B, 3, H, W), normalised
    labels: Tensor  # (B,) int64; -1 where there is none
    ids: Tensor  # (B,) int64, positions in the data set


class Losses(NamedTuple):
    """What a step minimises, and the parts to log."""

    total: Tensor  # scalar, mean over this worker's samples
    terms: dict[str, Tensor]  # unweighted parts by name, scalars


@dataclass(frozen=True)
class Context:
    """What a method may know about the run it is part of."""

    train_size: int  # images it trains on
    batch_size: int  # global batch of one optimizer step
    classes: int  # 0 where the data set has no labels
    image_size: int  # side of a view, pixels
    seed: int
    student: BackboneFacts | None = None  # shapes of the student at image_size; None: not looked at
    teacher: BackboneFacts | None = None  # likewise, of the teacher
    class_images: tuple[int, ...] = ()  # labelled ones of train_size, by class; (): not known yet
    accumulate: int = 1  # micro-batches of a step: a loss over relations sees the samples of one at a time


class Need(NamedTuple):
    """Memory of a worker's device that a setting asks for, beside what networks and batch take."""

    field: str  # config.NAME of a whole number, or optim.batch_size: what to lower
    what: str  # in words, plural
    kept: int = 0  # bytes of buffers, which are in every checkpoint
    step: int = 0  # bytes while a step is computed
    images: int = 0  # of all workers together, that pass through the student in every step


registry: dict[str, type[Method]] = {}  # filled as the files of `trainables.methods` are imported


class Method(nn.Module):
    """Base class. Subclasses set `name`, `summary`, `needs`, `views`, nest a `Config`, and define `forward`.

    Everything that changes while training must be a parameter or buffer of the module, so that it is in
    the checkpoint. The teacher is kept out of the module tree (`self.teacher`): it has no gradient, never
    changes, and is not saved.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for `raykd list methods`
    needs: ClassVar[frozenset[str]] = frozenset()  # of NEEDS, whatever the settings
    may_need: ClassVar[frozenset[str]] = frozenset()  # of NEEDS, what `requires` adds by settings
    views: ClassVar[int] = 2  # augmented views of an image in one step
    presets: ClassVar[
        Mapping[str, Mapping[str, Any]]
    ] = {}  # name -> parts of a trial: config, optim, views, epochs
    points: ClassVar[tuple[str, ...]] = ("backbone",)  # probe points it offers

    class Config(MethodConfig):
        pass

    student: Backbone
    teacher: Teacher | None

    def __init__(
        self, config: MethodConfig, student: Backbone, teacher: Teacher | None, context: Context
    ) -> None:
        if teacher is None and self.needs & TAUGHT:
            raise UserError("teacher", f"method {self.name!r} learns from a teacher, and there is none")
        if teacher is not None and teacher.head is None and "teacher_head" in self.needs:
            raise UserError("teacher", f"method {self.name!r} needs its projection head, and it has none")
        self.check(config, context)
        super().__init__()
        self.config = config
        self.context = context
        self.student = student
        # In a tuple, because a module set as an attribute would join the module tree.
        self._outside = (teacher,)

    def __getattr__(self, name: str) -> Any:
        if name == "teacher":
            return self.__dict__["_outside"][0]
        return super().__getattr__(name)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            known = registry.get(cls.name)
            if known is not None and known.__module__ != cls.__module__:
                raise TypeError(
                    f"method {cls.name!r} is defined in {known.__module__} and in {cls.__module__}"
                )
            registry[cls.name] = cls

    @classmethod
    def requires(cls, config: MethodConfig) -> Mapping[str, str]:
        """What these settings need: each of `needs` with "", each of `may_need` with the setting that asks.

        `{"teacher": "", "labels": "ce_weight: 1.0"}`. What is missing is refused before anything starts.
        """
        return dict.fromkeys(cls.needs, "")

    @classmethod
    def check(cls, config: MethodConfig, context: Context) -> None:
        """Raise `UserError` for a setting that cannot work with this run.

        Called before anything starts, and again by `__init__`: once the data has been read, `context` may
        know more.
        """

    @classmethod
    def memory(cls, config: MethodConfig, context: Context) -> tuple[Need, ...]:
        """What these settings keep, or make for a step, that may be large; `context` knows the shapes of
        student and teacher. A trial that asks for more than there is is refused before it starts."""
        return ()

    @classmethod
    def same(cls, context: Context) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Config field -> groups of its choices that are one function in this run: an axis needs one each."""
        return {}

    def begin(self, images: TrainingImages) -> None:
        """Look at the training images, once, on the trial's device; not when a checkpoint is gone on from.

        What is kept of them must be a buffer, of the same shape every time. Each worker calls this; all go on
        with what the first one came to.
        """

    def forward(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """After each optimizer step: move the mean student, fill the queue. `progress` runs from 0 to 1."""

    def own_head(self) -> nn.Module | None:
        """The projection head trained over the student's features, where this method trains one.

        A student saved with it can teach methods that reuse a teacher's head.
        """
        return None

    def own_classifier(self) -> nn.Linear | None:
        """The classifier trained over the student's features, where this method trains one.

        A student saved with it can teach methods that learn from a teacher's classes.
        """
        return None

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimizers leave undecayed: those that the student's architecture names."""
        named: set[str] = getattr(self.student.model, "no_weight_decay", set)()
        return {f"student.model.{name}" for name in named}

    def features(self, images: Tensor, point: str) -> Tensor:
        """(B, 3, H, W) -> (B, D) at a probe point of `points`. Called in eval mode without gradient."""
        features: Tensor = self.student(images)
        return features
