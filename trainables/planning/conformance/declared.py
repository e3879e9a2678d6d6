"""What a method declares, and what it refuses. No step is trained."""

from __future__ import annotations

import sys
from typing import Any

from trainables.methods import load_method
from trainables.methods.base import NEEDS, TAUGHT
from trainables.methods.parts.queue import Queue
from trainables.planning.conformance.base import Check, hold, refused, settings, submodules, taught
from trainables.planning.conformance.small_runs import TEACHER, make_method, make_teacher, train_steps
from trainables.teachers.teacher import Teacher
from trainables.training.flat_names import check_names
from trainables.training.resolve import resolve

PRESETS = {"paper", "digits"}


def _raw(name: str, **config: Any) -> dict[str, Any]:
    """A trial of the method as a user writes it."""
    written: dict[str, Any] = {
        "method": name,
        "student": {"arch": "test_resnet"},
        "epochs": 1,
        "config": config,
    }
    if taught(name):
        written["teacher"] = {"arch": TEACHER.arch, "train": {"method": "moco", "epochs": 1}}
    return written


def describes_itself(name: str) -> None:
    """Summary, needs, probe points, and a default and a description of every setting."""
    kind = load_method(name)
    hold(kind.name == name, f"its name is {kind.name!r}")
    hold(kind.summary and "\n" not in kind.summary, "`summary` is not one line")
    hold(kind.needs | kind.may_need <= set(NEEDS), f"`needs` or `may_need` has more than {sorted(NEEDS)}")
    hold("backbone" in kind.points, "`points` lacks backbone")
    # Settings change what is needed of data and teacher, not whether there is a teacher.
    hold(kind.needs & TAUGHT or not kind.may_need & TAUGHT, "`may_need` asks for a teacher, `needs` does not")
    about = sys.modules[kind.__module__].__doc__ or ""
    hold(about.count("\n") > 3, "the head of its file lacks paper, equations or command (4 lines at least)")
    check_names(kind)
    for field, info in kind.Config.model_fields.items():
        hold(info.description, f"{field} has no description")
        hold(not info.is_required(), f"{field} has no default")
    unknown = set(kind.small) - set(kind.Config.model_fields)
    hold(not unknown, f"`small` has {sorted(unknown)}, which are no settings")


def presets_are_trials(name: str) -> None:
    """There is a preset `paper` and a preset `digits`, and each gives a whole trial."""
    kind = load_method(name)
    hold(set(kind.presets) >= PRESETS, f"`presets` lacks {sorted(PRESETS - set(kind.presets))}")
    for preset in kind.presets:
        raw = {key: value for key, value in _raw(name).items() if key != "epochs"}
        trial = resolve({**raw, "preset": preset})
        hold(set(trial.config) == set(kind.Config.model_fields), f"preset {preset} leaves settings out")


def misspelt_fields_are_refused(name: str) -> None:
    """A setting with a letter too few is refused, and the right one named."""
    for field in load_method(name).Config.model_fields:
        wrong = field[:2] + field[3:]
        raw = _raw(name, **{wrong: 1})
        refused(lambda raw=raw: resolve(raw), f"config.{wrong}", f"Did you mean {field!r}?")  # type: ignore[misc]


def a_missing_teacher_is_refused(name: str) -> None:
    """No teacher, and one without a head where that is needed, are refused."""
    method = make_method(name)
    make = type(method)
    refused(
        lambda: make(method.config, method.student, None, method.context), "teacher", "learns from a teacher"
    )
    bare = Teacher(make_teacher().backbone, None)
    if "teacher_head" in method.needs:
        refused(
            lambda: make(method.config, method.student, bare, method.context),
            "teacher",
            "needs its projection head",
        )
    else:
        train_steps(make_method(name, teacher=bare), 1)


def queues_that_do_not_fit_are_refused(name: str) -> None:
    """A queue that the global batch does not divide, and one as large as the data."""
    # The first settings that make a queue.
    asked = next(s for s in settings(name) if submodules(make_method(name, **s), Queue))
    for size, words in (
        (12, "divisible by the global batch of 8"),
        (64, "smaller than the 64 training images"),
    ):
        given = {"queue_size": size, **asked}
        refused(lambda given=given: make_method(name, **given), "config.queue_size", words)  # type: ignore[misc]


def says_what_its_settings_need(name: str) -> None:
    """`requires` names each of `needs` without, and of `may_need` with the setting that asks for it."""
    kind = load_method(name)
    for config in settings(name):
        required = kind.requires(kind.Config(**config))
        hold(kind.needs <= set(required), f"`requires` lacks some of `needs` with {config}")
        hold(set(required) <= kind.needs | kind.may_need, f"`requires` has more than declared with {config}")
        for need, reason in required.items():
            right = bool(reason) == (need not in kind.needs)
            hold(right, f"`requires` gives {need} the reason {reason!r} with {config}")


def _has_queue(name: str) -> bool:
    return "queue_size" in load_method(name).Config.model_fields


CHECKS = (
    Check("it describes itself", describes_itself),
    Check("its presets are trials", presets_are_trials),
    Check("a misspelt setting is refused with the right word", misspelt_fields_are_refused),
    Check("it says what its settings need", says_what_its_settings_need),
    Check("a teacher that is missing or lacks a head is refused", a_missing_teacher_is_refused, taught),
    Check("a queue that does not fit is refused", queues_that_do_not_fit_are_refused, _has_queue),
)
