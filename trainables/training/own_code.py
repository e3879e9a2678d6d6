"""Which code from outside of raykd a trial uses. Its hash is part of the trial's identity."""

from __future__ import annotations

from trainables.core import plugins
from trainables.evaluation import probes
from trainables.networks import plugin_networks
from trainables.spec.trial import StudentSpec, TrialSpec, teacher_field


def own_code(trial: TrialSpec) -> dict[str, str]:
    """Module -> hash of its code, for every module outside of raykd that `trial` takes something from.

    Raises `UserError` where such a module cannot be imported.
    """
    from trainables.data import sources
    from trainables.methods import load_method

    methods, archs = [trial.method], [(trial.student.arch, "student")]
    for at, teacher in enumerate(trial.teachers):
        archs.append((teacher.arch, teacher_field(trial, at)))
        if teacher.train is not None:
            methods.append(teacher.train.method)
    modules = [load_method(name).__module__ for name in methods]
    modules += trial.student.train.plugins if trial.student.train is not None else ()
    for teacher in trial.teachers:
        if teacher.train is not None and teacher.train.start:
            before = StudentSpec.model_validate(teacher.train.start).train
            modules += before.plugins if before is not None else ()
    for place, section in archs:
        for module in plugin_networks.plugins_of(place):
            plugins.load(module, f"{section}.arch")
            modules.append(module)
    for name in (trial.probe.score, *trial.probe.record):
        modules += probes.plugins_of(name)
    modules += sources.plugins_of(trial.data.name)
    return plugins.codes(modules)
