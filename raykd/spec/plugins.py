"""The modules of a user's own that a spec names under `plugins`: found, imported and recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.core import plugins
from trainables.core.errors import UserError

if TYPE_CHECKING:
    from raykd.spec.sweep import SweepSpec


def bring_plugins(raw: Mapping[str, Any], path: Path | None, folder: Path | None) -> None:
    """Import the modules that `raw`, the content of a spec's file `path`, names.

    They are installed, or lie in the folder of the file, or in `folder`, by default this process's working
    folder. Raises `UserError`. Loads torch where there are such modules.
    """
    names = plugins.named(raw.get("plugins") or ())
    plugins.look_in(plugin_folders(path, folder))
    if names:
        from trainables.planning.plugins import bring

        bring(names)


def plugin_folders(path: Path | None, folder: Path | None) -> list[Path]:
    """Where the modules of a spec may lie, if they are not installed."""
    beside = [path.resolve().parent] if path is not None and path.resolve().is_file() else []
    return [*beside, folder or Path.cwd()]


def declare_recorded(recorded: Mapping[str, Any]) -> None:
    """Make the modules that a sweep's first record names known. None is imported before it is asked for.

    Others may write where sweeps are kept. So of the folders that the record names only this user's and
    root's are looked in.
    """
    source = recorded.get("source") or {}
    path, folder = source.get("path"), source.get("folder")
    named = plugin_folders(Path(path) if path else None, Path(folder) if folder else None)
    plugins.look_in(each for each in named if each.is_dir() and each.stat().st_uid in (os.geteuid(), 0))
    plugins.declare(plugins.named(recorded["spec"].get("plugins") or ()))


def code_of(spec: SweepSpec) -> dict[str, str]:
    """Module -> hash of its code, for all that the sweep takes from outside of raykd.

    Its trials were resolved before. Raises `UserError` for a module that is not here.
    """
    for name in spec.plugins:
        plugins.load(name)
    if not plugins.in_use():
        return {}
    found = plugins.codes(spec.plugins)
    trials = [*spec.trial_of_each(), *([spec.baseline_trial()] if spec.baseline is not None else [])]
    for trial in trials:
        found |= trial.plugins
    return found


def refuse_changed_code(recorded: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `UserError` that names the files which differ from those in a sweep's first record.

    `now` is what `plugins.described` says today.
    """
    then: Mapping[str, Mapping[str, Any]] = recorded.get("plugins") or {}
    for name, was in then.items():
        here = now.get(name)
        if here is None or here["code"] == was["code"]:
            continue
        before, after = was["files"], here["files"]
        changes = [
            *(f"{file} has changed" for file in before if file in after and before[file] != after[file]),
            *(f"{file} is gone" for file in before if file not in after),
            *(f"{file} is new" for file in after if file not in before),
        ]
        raise UserError(
            plugins.FIELD,
            f"the code in {here['file']} is not what this sweep was started with: {'; '.join(changes)}",
            value=name,
            expected="the code as it was, or a new sweep under another name",
        )
