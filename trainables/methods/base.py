"""The contract of a distillation method, and the registry of all methods.

A method is one file in `trainables/methods/`: its settings, its loss as a pure function, and a `Method`
subclass that connects student, teacher and loss. Defining the subclass registers it:

    class Cosine(Method[CosineConfig]):     # `self.config` is a CosineConfig
        name = "cosine"
        summary = "one line for `raykd list methods`"
        needs = frozenset({"teacher"})
        def build(self): ...                # the modules it trains; drawn from the trial's seed
        def forward(self, batch): ...       # a `Losses`

The training loop uses it like this:

    method = load_method("cosine")(config, student, teacher, context)
    method.begin(images)            # what the method takes from the data: anchors, a fitted classifier
    losses = method(batch)          # under DDP and autocast
    losses.total.backward(); optimizer.step()
    method.after_step(fraction)     # momentum encoder, queue
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, get_args

from torch import Tensor, nn
from typing_extensions import TypeVar

from trainables.core.errors import UserError
from trainables.data.encode import TrainingImages
from trainables.networks.backbones import Backbone, BackboneFacts, seeded
from trainables.spec.inputs import Inputs
from trainables.spec.trial import OptimSpec, Spec
from trainables.teachers.teacher import Ask, Teacher, What

# What a method may need, and how a message calls it.
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


ViewsFor: TypeAlias = Callable[[Inputs], list[Tensor]]  # what a network takes -> views, each (B, 3, H, W)


class Batch(NamedTuple):
    """This worker's share of one micro-batch, on the trial's device."""

    views: list[Tensor]  # each (B, 3, H, W), normalised
    labels: Tensor  # (B,) int64; -1 for an image without a label
    ids: Tensor  # (B,) int64, positions in the data set
    # The teacher's answers to these views that are known. `Method.taught` reads it, and adds the answers that
    # it computes. None: nothing is known and nothing is kept.
    targets: dict[Ask, Tensor] | None = None
    # The same views for a network that sees another size. None: it enlarges or reduces `views`.
    views_for: ViewsFor | None = None


class Losses(NamedTuple):
    """What a step minimises, and the parts to log."""

    total: Tensor  # scalar, mean over this worker's samples
    terms: dict[str, Tensor]  # unweighted parts by name, scalars


@dataclass(frozen=True)
class Context:
    """What a method may know about the run that it is part of."""

    train_size: int  # number of training images
    batch_size: int  # global batch of one optimizer step
    classes: int  # 0 for data without labels
    image_size: int  # side of a view, pixels
    seed: int
    student: BackboneFacts | None = None  # shapes of the student at image_size; None: not known yet
    teacher: BackboneFacts | None = None  # shapes of the first teacher; None: not known yet
    further_teachers: tuple[BackboneFacts, ...] = ()  # of the others
    class_images: tuple[int, ...] = ()  # labelled training images of each class; (): not known yet
    accumulate: int = 1  # micro-batches of a step; a loss between samples sees one micro-batch at a time
    student_has_learned: bool = False  # whether the student starts from weights that it has learned before

    @property
    def every_teacher(self) -> tuple[BackboneFacts, ...]:
        """The shapes of all teachers; () if they are not known."""
        return () if self.teacher is None else (self.teacher, *self.further_teachers)


class Need(NamedTuple):
    """Device memory of one worker that a setting asks for, in addition to networks and batch."""

    field: str  # config.NAME of an integer, or optim.batch_size: the setting to lower
    what: str  # in words, plural
    kept: int = 0  # bytes of buffers; they are in every checkpoint
    step: int = 0  # bytes while a step is computed
    images: int = 0  # images, over all workers, that pass through the student in every step


Presets: TypeAlias = Mapping[str, Mapping[str, Any]]  # name -> parts of a trial: config, optim, views, epochs
# The default lets other code write `Method` for a method with any settings.
C = TypeVar("C", bound=MethodConfig, default=Any)

registry: dict[str, type[Method]] = {}  # filled as the files of `trainables.methods` are imported


class Method(nn.Module, Generic[C]):
    """Base class of every method; `Method[MyConfig]` states the type of its settings.

    A subclass sets `name` and `summary`, the other class attributes where they differ from the defaults, and
    defines `build` and `forward`. Everything that changes during training must be a parameter or a buffer of
    the module, because only these are in the checkpoint. The teacher (`self.teacher`) is not a submodule: it
    has no gradient, never changes, and is not saved.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for `raykd list methods`
    needs: ClassVar[frozenset[str]] = frozenset()  # keys of NEEDS, with all settings
    may_need: ClassVar[frozenset[str]] = frozenset()  # keys of NEEDS that `requires` adds for some settings
    # It learns from the teacher's embeddings (`taught(batch, "embed")`), and from the features of a teacher
    # without a head. A method that needs a head has `teacher_head` in `needs` instead.
    embeds: ClassVar[bool] = False
    several_teachers: ClassVar[bool] = False  # it learns from each of `self.teachers`, by their `weight`
    views: ClassVar[int] = 2  # augmented views of an image in one step
    presets: ClassVar[Presets] = {}
    points: ClassVar[tuple[str, ...]] = ("backbone",)  # probe points; see `features`
    static_graph: ClassVar[bool] = True  # every step uses the same parameters, and each equally often
    Config: ClassVar[type[MethodConfig]] = MethodConfig  # set by `Method[MyConfig]`

    # For the checks that run every method (trainables/planning/conformance/):
    small: ClassVar[
        Mapping[str, Any]
    ] = {}  # settings that make it small, and stable at a learning rate of .05
    relational: ClassVar[str] = (
        ""  # why the loss changes when each sample is repeated; "": it does not change
    )

    config: C
    context: Context
    student: Backbone
    # The first teacher. None for a method whose `needs` names no teacher. Not in the type, because such a
    # method never reads it.
    teacher: Teacher
    teachers: tuple[Teacher, ...]  # more than one only if `several_teachers`

    def __init__(
        self,
        config: C,
        student: Backbone,
        teacher: Teacher | Sequence[Teacher] | None,
        context: Context,
    ) -> None:
        """Check the settings, then `build`. Raises `UserError` if the settings or the teachers do not fit."""
        teachers = () if teacher is None else (teacher,) if isinstance(teacher, Teacher) else tuple(teacher)
        if not teachers and self.needs & TAUGHT:
            raise UserError("teacher", f"method {self.name!r} learns from a teacher, and there is none")
        if len(teachers) > 1 and not self.several_teachers:
            raise UserError("teacher", f"method {self.name!r} learns from one teacher", value=len(teachers))
        if "teacher_head" in self.needs and any(one.head is None for one in teachers):
            raise UserError("teacher", f"method {self.name!r} needs its projection head, and it has none")
        self.check(config, context)
        super().__init__()
        self.config = config
        self.context = context
        self.student = student
        # Past nn.Module.__setattr__, which would make it a submodule.
        object.__setattr__(self, "teacher", teachers[0] if teachers else None)
        object.__setattr__(self, "teachers", teachers)
        with seeded(context.seed):
            self.build()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for argument in (a for b in cls.__dict__.get("__orig_bases__", ()) for a in get_args(b)):
            config = getattr(argument, "__bound__", argument)  # of a type variable, what it is bounded by
            if isinstance(config, type) and issubclass(config, MethodConfig):
                cls.Config = config
        if "name" in cls.__dict__:
            known = registry.get(cls.name)
            if known is not None and known.__module__ != cls.__module__:
                raise UserError(
                    f"{cls.__module__}.{cls.__name__}.name",
                    f"{known.__module__} defines a method with this name",
                    value=cls.name,
                    expected="another name",
                )
            registry[cls.name] = cls

    def build(self) -> None:
        """Make the modules and buffers of the method. Called once, by `__init__`.

        torch's generator is seeded with the trial's seed here and restored afterwards, so the initial weights
        depend on the seed alone. `config`, `context`, `student` and `teacher` are set. A subclass of
        `Labelled` or `Staged` calls `super().build()` first.
        """

    @classmethod
    def requires(cls, config: C) -> Mapping[str, str]:
        """What these settings need: each of `needs` with "", each of `may_need` with the setting that asks.

        `{"teacher": "", "labels": "ce_weight: 1.0"}`. A trial that lacks one of them is refused before it
        starts.
        """
        return dict.fromkeys(cls.needs, "")

    @classmethod
    def asks(cls, config: C) -> frozenset[tuple[What, int]]:
        """What `forward` asks by `taught` with these settings: kind of answer and number of the view.

        It asks every teacher the same. These answers are computed once and shared by all trials. The default:
        of every view the embedding if the method learns from embeddings, else the features; nothing if it
        compares feature maps or mixes images.
        """
        if not cls.needs & TAUGHT or "feature_maps" in cls.requires(config) or cls.mixes(config):
            return frozenset()
        what: What = "embed" if cls.embeds or "teacher_head" in cls.needs else "features"
        return frozenset((what, view) for view in range(cls.views))

    @classmethod
    def mixes(cls, config: C) -> bool:
        """Does `forward` show the networks mixtures of the views instead of the views?

        What the teacher says of a mixture is of use to one step of one trial. So it is not shared: `forward`
        asks the teacher itself.
        """
        return False

    @classmethod
    def check(cls, config: C, context: Context) -> None:
        """Raise `UserError` for a setting that cannot work in this run.

        Called before the trial starts and again by `__init__`, when `context` may know more of the data.
        """

    @classmethod
    def memory(cls, config: C, context: Context) -> tuple[Need, ...]:
        """Large memory that these settings need; `context` knows the shapes of student and teacher.

        A trial that needs more than the device has is refused before it starts.
        """
        return ()

    @classmethod
    def same(cls, context: Context) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Config field -> groups of its choices that are the same function in this run.

        An axis needs only one choice of each group.
        """
        return {}

    def begin(self, images: TrainingImages) -> None:
        """Look at the training images once, on the trial's device. Not called when a checkpoint is resumed.

        What is kept of the images must be a buffer whose shape does not depend on them. Every worker calls
        this; afterwards all have the buffers of the first worker.
        """

    def forward(self, batch: Batch) -> Losses:
        """The losses of one micro-batch."""
        raise NotImplementedError

    def taught(self, batch: Batch, what: What, view: int = 0, teacher: int = 0) -> Tensor:
        """A teacher's `features`, `embed` or `logits` of a view, (B, D), without gradient.

        `teacher` is its number in `teachers`. A ready answer in `batch.targets` is taken; else the teacher is
        asked, and its answer is added there.
        """
        known = batch.targets if batch.targets is not None else {}
        ask = Ask(what, view, teacher)
        if ask not in known:
            known[ask] = self.teachers[teacher].answer(what, self.shown(batch, teacher)[view])
        return known[ask]

    def shown(self, batch: Batch, teacher: int = 0) -> list[Tensor]:
        """The views as a teacher sees them: of the student's size, or of its own (`teacher.image_size`).

        A teacher takes views of any size, and resizes those that are not of its own.
        """
        inputs = self.teachers[teacher].backbone.inputs
        return batch.views_for(inputs) if batch.views_for is not None else batch.views

    def after_step(self, fraction: float) -> None:
        """Update what follows the student, such as a momentum encoder or a queue, after an optimizer step.

        `fraction` is the part of the training that is done; it is 1 after the last step.
        """

    def own_head(self) -> nn.Module | None:
        """The projection head that is trained over the student's features; None for a method without one.

        A student that is saved with it can teach methods that reuse a teacher's head.
        """
        return None

    def own_classifier(self) -> nn.Linear | None:
        """The classifier that is trained over the student's features; None for a method without one.

        A student that is saved with it can teach methods that learn from a teacher's classes.
        """
        return None

    def parameter_groups(self, optim: OptimSpec) -> list[dict[str, Any]] | None:
        """The optimizer's groups: `params` with their `lr_scale` and `weight_decay`; None: as usual."""
        return None

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the student's architecture excludes from weight decay, as in timm."""
        named: set[str] = getattr(self.student.model, "no_weight_decay", set)()
        return {f"student.model.{name}" for name in named}

    def features(self, images: Tensor, point: str) -> Tensor:
        """(B, 3, H, W) -> (B, D) at a probe point. Called in eval mode without gradient.

        `backbone` are the student's features. Another point is the output of the module of that name over
        them: `points = ("backbone", "head")` probes `self.head(self.student(images))` too.
        """
        features: Tensor = self.student(images)
        return features if point == "backbone" else getattr(self, point)(features)


def check_class(kind: type[Method]) -> None:
    """Raise `UserError` for a method class that does not describe itself completely."""
    where = f"{kind.__module__}.{kind.__name__}"
    summary = getattr(kind, "summary", "")
    if not summary or "\n" in summary:
        raise UserError(f"{where}.summary", "is missing or has several lines", expected="one line of text")
    for need in (kind.needs | kind.may_need) - set(NEEDS):
        raise UserError(f"{where}.needs", "no such need", value=need, choices=NEEDS)
    for name, field in kind.Config.model_fields.items():
        place = f"{kind.Config.__module__}.{kind.Config.__qualname__}.{name}"
        if not field.description or field.is_required():
            lacks = "description" if field.description is None else "default"
            raise UserError(place, f"has no {lacks}", expected="`Field(DEFAULT, description=...)`")
