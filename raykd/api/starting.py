"""Starting searches and studies from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raykd.api.session import driving
from raykd.api.sweep import Study, Sweep, storage_of
from raykd.console.live import Console
from raykd.storage.base import Storage

if TYPE_CHECKING:
    from raykd.runs.start import SearchRequest
    from raykd.runs.study import StudyRequest
    from raykd.spec.given import Given, Overrides


def search(
    spec: Given | SearchRequest,
    *,
    overrides: Overrides = (),
    storage: str | Path | Storage | None = None,
    address: str | None = None,
    progress: bool | Console | None = None,
) -> Sweep:
    """Run a search space and return the sweep when every trial has ended or its time limit is reached.

    - `spec`: a YAML file's path, the name of a space in `raykd list spaces`, YAML text, a dict of the same
      keys, or a `raykd.SearchSpec`
    - `overrides`: laid over it, as `{"samples": 40, "axes.gamma.log": [0.01, 1]}` or `["samples=40"]`
    - `storage`: folder or URI that holds sweeps; by default RAYKD_STORAGE or `sweeps`
    - `address`: of a Ray cluster to join, `auto` or `local`; by default RAY_ADDRESS, one that your
      `ray start` began on this machine, or a new one that ends with the call
    - `progress`: None: a bar in a notebook or a terminal, else nothing; True: where there is neither, the
      lines of `raykd run`; False: nothing

    Ctrl-C, or a notebook's stop button, ends it in good order, which takes up to 25 s; then
    `KeyboardInterrupt` is raised, and `raykd.open(name).resume()` goes on. In a thread that is not the main
    one no signal reaches it. Raises `UserError` for what cannot work, before machine time is spent, and for a
    name that is taken; `SweepFailed` where it cannot go on.
    """
    with driving(progress) as console:
        from raykd.runs.start import SearchRequest
        from raykd.runs.sweep import Place

        request = spec if isinstance(spec, SearchRequest) else SearchRequest.find(spec, overrides)
        place = Place(_writable(storage).sweep(request.spec.name), address)
        request.run(place, console)
    return Sweep(place.sweep)


def ablate(
    spec: Given | StudyRequest,
    *,
    preset: str | None = None,
    overrides: Overrides = (),
    storage: str | Path | Storage | None = None,
    address: str | None = None,
    progress: bool | Console | None = None,
) -> Study:
    """Run an ablation study, or go on with one, and return it.

    `spec` is a YAML file's path, the name of a study in `raykd list studies` or of one that has begun, YAML
    text, a dict of the same keys, or a `raykd.StudyFile`. `preset` is one of the study's file, such as
    `paper`. All else, and what is raised, is as of `search`.
    """
    with driving(progress) as console:
        from raykd.runs.study import StudyRequest

        if isinstance(spec, StudyRequest):
            request = spec
        else:
            request = StudyRequest.find(spec, preset, overrides, _writable(storage))
        request.run(address, console)
    return Study(request.sweep)


def _writable(given: str | Path | Storage | None) -> Storage:
    if isinstance(given, Storage):  # whoever opened it has looked
        return given
    storage = storage_of(given)
    storage.check_place(storage.option, probe=True)
    return storage
