"""Which code from outside of raykd a trial uses. Its hash is part of the trial's identity."""

from __future__ import annotations

from trainables.core import plugins
from trainables.evaluation import probes
from trainables.networks import plugin_networks
from trainables.spec.trial import StudentSpec, TrialSpec


def own_code(trial: TrialSpec) -> dict[str, str]:
    """Module -> hash of its code, for every module outside of raykd that `trial` takes something from.

    Raises `UserError` where such a module cannot be imported.
    """
    from trainables.data import sources
    from trainables.methods import load_method

    methods, archs = [trial.method], [trial.student.arch]
    if trial.teacher is not None:
        archs.append(trial.teacher.arch)
        if trial.teacher.train is not None:
            methods.append(trial.teacher.train.method)
    modules = [load_method(name).__module__ for name in methods]
    modules += trial.student.train.plugins if trial.student.train is not None else ()
    if trial.teacher is not None and trial.teacher.train is not None and trial.teacher.train.start:
        before = StudentSpec.model_validate(trial.teacher.train.start).train
        modules += before.plugins if before is not None else ()
    for place, section in zip(archs, ("student", "teacher"), strict=False):
        for module in plugin_networks.plugins_of(place):
            plugins.load(module, f"{section}.arch")
            modules.append(module)
    for name in (trial.probe.score, *trial.probe.record):
        modules += probes.plugins_of(name)
    modules += sources.plugins_of(trial.data.name)
    return plugins.codes(modules)
