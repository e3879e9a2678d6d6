"""Checks of one sweep: its settings, data and teacher, and the Ray cluster or machine that it would use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raykd.doctor.check import Check, answered
from trainables.core.errors import UserError, first_line

if TYPE_CHECKING:
    from raykd.spec.search import SearchSpec


def check_spec(spec: SearchSpec) -> Iterator[Check]:
    """Four checks: is the data there, can teacher and student be read, can every setting work?"""
    from raykd.spec.validate import validate
    from trainables.data.data_sets import check_data
    from trainables.methods import load_method
    from trainables.planning.student_check import check_student, start_text
    from trainables.planning.teacher_check import check_teacher

    def trial_data() -> str:
        trial = spec.trial({}, spec.seeds[0])
        facts = check_data(trial.data)
        return f"{trial.data.name}: {facts.train_images} images to train on, {facts.classes} classes"

    def trial_teacher() -> str:
        said = []
        trials = [spec.trial({"method": method}, spec.seeds[0]) for method in spec.methods]
        for trial in [*trials, *spec.trials_with_inputs()]:
            needs = load_method(trial.method).needs
            if not trial.teachers:
                said.append(f"{trial.method} needs none")
            for teacher in trial.teachers:
                check_teacher(teacher, needs)
                if teacher.checkpoint is not None:
                    said.append(f"{teacher.checkpoint} reads as a {teacher.arch}")
                else:
                    said.append(f"a {teacher.arch} will be trained")
        return "; ".join(dict.fromkeys(said))

    def trial_student() -> str:
        said = []
        for method in spec.methods:
            student = spec.trial({"method": method}, spec.seeds[0]).student
            check_student(student)
            random = f"a {student.arch} starts from random weights"
            said.append(start_text(student) if student.checkpoint is not None else random)
        return "; ".join(dict.fromkeys(said))

    def whole() -> str:
        remarks = validate(spec)
        return "; ".join(remarks) or f"{spec.name}: every setting can work"

    yield answered("data", trial_data)
    yield answered("teacher", trial_teacher)
    yield answered("student", trial_student)
    yield answered("spec", whole)


def check_plugins(spec: SearchSpec) -> Iterator[Check]:
    """What the modules of the user's own add, and which code of theirs the trials take; one check or none."""
    from raykd.spec.plugins import code_of
    from trainables.core.plugins import described
    from trainables.planning.plugins import bring

    def added() -> str:
        return "; ".join([*bring(spec.plugins), *places])

    try:
        code = described(code_of(spec))
    except UserError as error:
        yield Check("plugins", False, str(error), f"correct `{error.field}`")
        return
    places = [f"{name} is {of['code'][:8]}, in {of['file']}" for name, of in code.items()]
    if places:
        yield answered("plugins", added)


def check_workers(spec: SearchSpec) -> Check:
    """Can this machine, or the cluster that `run` would join from here, hold a lane?"""
    from raykd.doctor.compare import check_room

    try:
        from raykd.lanes.cluster import LOCAL, connected, live_nodes, ray_address, this_machine

        address = ray_address(None)
        if address == LOCAL:
            here = this_machine()
            return check_room(spec, [here], here["Resources"], autoscales=False)
        with connected(address):
            import ray

            from raykd.lanes.autoscaler import autoscales

            return check_room(spec, live_nodes(), ray.available_resources(), autoscales())
    except UserError as error:
        return Check("workers", False, str(error), "mend that, or give sweeps `--address local`")
    except Exception as error:  # a Ray that is broken
        mend = "`raykd doctor` without a spec looks at Ray; a cluster is joined where RAY_ADDRESS says so"
        return Check("workers", False, f"Ray cannot say what is here: {first_line(error)}", mend)


def check_stale_cluster(folder: Path | None = None) -> Check:
    """Which Ray cluster would sweeps join from here, and can it be joined?

    RAY_ADDRESS says so, or else Ray's address file, in `folder` or where Ray looks for it.
    """
    name = "Ray's address file"
    try:
        from raykd.lanes import joining
        from raykd.lanes.cluster import LOCAL, ray_address
        from raykd.storage import owners

        found, address = joining.read_address_file(folder), joining.running_here(folder)
        if folder is None and os.environ.get("RAY_ADDRESS"):
            name, address = "Ray cluster", ray_address(None)
        elif found is None:
            return Check(name, True, "no cluster was left behind")
        elif found.uid != os.geteuid():
            said = f"{found.path} is {owners.user(found.uid)}'s: sweeps start a Ray of their own"
            return Check(name, None, said)
        elif address is None:
            said = f"{found.path} names a cluster that is gone ({found.address}): sweeps start their own"
            return Check(name, None, said, f"rm {found.path}")
        if address == LOCAL:
            return Check(name, True, "sweeps start a Ray of their own")
        remarks = joining.look(address).remarks
        said = f"a Ray cluster of yours is running at {address}; sweeps will join it"
        return Check(name, None if remarks else True, "; ".join([said, *remarks]))
    except UserError as error:
        return Check(name, False, str(error), "mend that, or give sweeps `--address local`")
    except Exception as error:  # a Ray that is broken
        return Check(name, False, f"Ray cannot say: {first_line(error)}", "look at the check of `ray`")
