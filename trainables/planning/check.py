"""Everything about a trial that can be known to be wrong before it starts.

    TrialChecker(workers=2).check(trial)       # raises UserError

Nothing is decoded, trained or downloaded. What is slow to find out (how large a data set is, which shapes a
network gives, what a checkpoint holds) is found out once for all trials that agree in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from trainables.core.errors import UserError
from trainables.data.data_sets import DataFacts, check_data, check_pictures
from trainables.evaluation.probes import check_probe
from trainables.methods import load_method
from trainables.methods.base import TAUGHT, Context
from trainables.networks.backbones import BackboneFacts
from trainables.planning.student_check import check_student, student_remarks
from trainables.planning.teacher_check import check_teacher, few_pixels, headless, teacher_remarks
from trainables.spec.parse import join
from trainables.spec.trial import DataSpec, TeacherSpec, TrialSpec, teacher_field
from trainables.teachers.feeding import remark
from trainables.teachers.teacher import FIT
from trainables.training.memory import check_memory, heavy, with_shapes
from trainables.training.optimizer import check_optim
from trainables.training.teacher_file import fits_head, teacher_trial
from trainables.views.recipes import augments, check_views, recipe_of

T = TypeVar("T")


class TrialChecker:
    """Checks trials that are to run on `workers` workers each, which have `memory` bytes (None: unknown)."""

    def __init__(self, workers: int = 1, memory: int | None = None) -> None:
        self._workers, self._memory = workers, memory
        self._known: dict[tuple[Any, ...], Any] = {}

    def check(self, trial: TrialSpec) -> None:
        """Raise `UserError`, with the field's path in a trial, for one that cannot work."""
        method = load_method(trial.method)
        facts = self._facts(trial.data)
        self._once(("pictures", trial.data), lambda: check_pictures(trial.data))
        config = method.Config(**trial.config)
        needs = method.requires(config)
        if "labels" in needs and not facts.classes:
            asked = f" with {needs['labels']}" if needs["labels"] else ""
            raise UserError(
                "data.name",
                f"method {method.name!r}{asked} needs labels, and these images have none",
                value=trial.data.name,
            )
        check_probe(trial.probe, facts)
        check_views(trial.views)
        if trial.data.fit == "whole" and any(
            recipe_of(trial.views, view).pad for view in range(method.views)
        ):
            raise UserError(
                "data.fit",
                "goes with no recipe that crops from a border: it would show pictures squeezed",
                value="whole",
                expected="`fit: centre`, or a recipe of resized crops such as imagenet",
            )
        if method.views > 1 and not method.needs & TAUGHT and not augments(trial.views):
            field = "recipe" if trial.views.strength > 0 or trial.views.recipe == "none" else "strength"
            raise UserError(
                f"views.{field}",
                f"method {method.name!r} compares views of an image, which without augmentation are all one",
                value=getattr(trial.views, field),
                expected="a recipe that changes images, at a strength above 0",
            )
        self._once(("student", trial.student), lambda: check_student(trial.student))
        for at, teacher in enumerate(trial.teachers):
            try:
                self._teacher(teacher, frozenset(needs), facts.classes)
            except UserError as error:
                raise error.at(error.field.replace("teacher", teacher_field(trial, at), 1)) from None
        images = facts.train_images
        self._once(
            ("optim", trial.optim, trial.epochs, images),
            lambda: check_optim(trial.optim, trial.epochs, images, self._workers),
        )
        context = self.context(trial)
        if "feature_maps" in needs:
            _check_maps(trial, context)
        method.check(config, context)
        check_memory(trial, method, context, self._workers, self._memory)
        if trial.student.train is not None:
            self._training(trial.student.train, "student.train")
        for at, one in enumerate(trial.of_each_teacher):
            if (training := teacher_trial(one)) is not None:
                section = join(teacher_field(trial, at), "head" if fits_head(training) else "train")
                self._training(training, section)

    def _training(self, training: TrialSpec, where: str) -> None:
        self._once(("training", training), lambda: self.check_section(training, where))

    def context(self, trial: TrialSpec) -> Context:
        """What the trial's method may know about it, the student's shapes included."""
        facts = self._facts(trial.data)
        known = Context(
            train_size=facts.train_images,
            batch_size=trial.optim.batch_size,
            classes=facts.classes,
            image_size=trial.data.image_size,
            seed=trial.seed,
            class_images=facts.class_images,
            accumulate=trial.optim.accumulate,
            student_has_learned=trial.student.has_learned,
        )
        return with_shapes(known, trial)

    def remarks(self, trial: TrialSpec) -> dict[str, str]:
        """What can be run and may not be meant, about a trial that was checked.

        By what it is about: of trials of one sweep the first remark with a key says enough.
        """
        method = load_method(trial.method)
        said: dict[str, str] = {}
        for large in heavy(trial, method, self.context(trial)):
            said.setdefault(large.partition(":")[0], large)
        for teacher in trial.teachers if method.needs & TAUGHT else ():
            told = self._once(("remarks", teacher, trial.data), partial(_told_of, teacher, trial.data))
            if method.embeds and (why := self._once(("headless", teacher), partial(headless, teacher))):
                instead = f"so it distils on the teacher's features; another way is {FIT}"
                told = [*told, f"method {method.name}: {why}, {instead}"]
            said |= {sentence: sentence for sentence in told}  # each teacher's own
        starts = self._once(("start", trial.student), lambda: student_remarks(trial.student))
        said |= {sentence: sentence for sentence in starts}
        return said

    def same_choices(self, trial: TrialSpec) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Config field -> groups of its choices that are one function in this trial."""
        return load_method(trial.method).same(self.context(trial))

    def _facts(self, data: DataSpec) -> DataFacts:
        return self._once(("data", data), lambda: check_data(data))

    def _teacher(self, spec: TeacherSpec, needs: frozenset[str], classes: int) -> None:
        self._once(("teacher", spec, needs, classes), lambda: check_teacher(spec, needs, classes=classes))

    def check_section(self, trial: TrialSpec, where: str) -> None:
        """`check` for a trial that the section `where` describes: a teacher's training, a baseline.

        Where a default of the method's settings cannot work, the message names a preset that does.
        """
        try:
            self.check(trial)
        except UserError as error:
            if name := self._preset_that_fits(trial, error.field):
                section = where.rpartition(".")[2]
                error = error.with_hint(
                    f"It is the method's default; preset {name!r} fits: `{section}: {{preset: {name}}}`"
                )
            raise error.under(where) from None

    def _preset_that_fits(self, training: TrialSpec, field: str) -> str | None:
        """Where a default of the method's settings was refused: a preset of it whose settings pass."""
        method, name = load_method(training.method), field.removeprefix("config.")
        default = method.Config.model_fields.get(name)
        if name == field or default is None or training.config[name] != default.default:
            return None
        for preset, sections in method.presets.items():
            try:
                method.check(
                    method.Config(**training.config | sections.get("config", {})), self.context(training)
                )
            except UserError:
                continue
            return preset
        return None

    def _once(self, key: tuple[Any, ...], find: Callable[[], T]) -> T:
        """What `find` returns, found out once."""
        if key not in self._known:
            self._known[key] = find()
        found: T = self._known[key]
        return found


def _told_of(teacher: TeacherSpec, data: DataSpec) -> list[str]:
    return [*filter(None, [remark(teacher), few_pixels(teacher, data)]), *teacher_remarks(teacher)]


def _check_maps(trial: TrialSpec, context: Context) -> None:
    """Refuse a network without stage maps where the method compares inside the networks."""
    networks: list[tuple[str, BackboneFacts | None, str]] = [("student", context.student, trial.student.arch)]
    for at, facts in enumerate(context.every_teacher):
        networks.append((teacher_field(trial, at), facts, trial.teachers[at].arch))
    for side, found, arch in networks:
        if found is not None and not found.stages:
            raise UserError(
                f"{side}.arch",
                f"method {trial.method!r} compares feature maps, and this network has none",
                value=arch,
                expected="a network of stages: a convolutional one, or a vision transformer",
            )
