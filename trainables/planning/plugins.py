"""Imports the modules that a spec names as its plug-ins, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainables.core import plugins
from trainables.core.errors import UserError


def bring(names: Iterable[str], folders: Iterable[Path] = (), field: str = plugins.FIELD) -> list[str]:
    """Import these modules, which may lie in `folders`, and return what each adds, in words.

    Raises `UserError` for a module that is not there, that cannot be imported, that adds nothing, and that
    adds something incomplete or a name that is taken.
    """
    plugins.look_in(folders)
    said = []
    for name in names:
        said.append(f"{name}: {_added_by(name, field)}")
        plugins.declare([name])
    if said:
        _refuse_taken_names()
    return said


def _added_by(name: str, field: str) -> str:
    from trainables.data import sources
    from trainables.evaluation import probes
    from trainables.methods import added_by, methods

    methods()  # raykd's own first: a class with one of their names is refused where it is defined
    module = plugins.load(name, field)
    found = {
        "method": [kind.name for kind in added_by(module)],
        "data source": [source.name for source in sources.added_by(module)],
        "probe": [probe.label for probe in probes.added_by(module)],
    }
    if not any(found.values()):
        raise UserError(
            field,
            "adds neither a method nor a data source nor a probe",
            value=name,
            expected="the module that defines them; a network needs no line here, only "
            "`student: {arch: my_package:make_net}`",
        )
    return ", ".join(f"{noun} {own}" for noun, names in found.items() for own in names)


def _refuse_taken_names() -> None:
    from trainables.data.sources import sources
    from trainables.evaluation.probes import probes

    sources()
    probes()
