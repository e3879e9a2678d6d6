"""`raykd report NAME`: one self-contained HTML page of a sweep or a study.

    write(storage.sweep("quickstart"), Path("quickstart.html"))

The modules named `*_section*` return the page as the plain data of `elements`; `plots` and the modules named
`*_figures` draw; `page` writes HTML. Nothing here needs Ray. The importances of a search's axes and the
comparisons of a study load the methods, which import torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from raykd.records import views
from raykd.records.recorded_spec import spec_of
from raykd.report.elements import Page
from raykd.spec.study import StudySpec
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError
from trainables.core.files import own_folder, replacing

REPORT = "report.html"


def write(
    place: SweepFolder | Path,
    out: Path | None,
    progress: Callable[[int, int], None] | None = None,
    by: str | None = None,
) -> Path:
    """Write the page of the sweep at `place` to `out`, and return the file.

    Without `out` it is `report.html` in the sweep's folder, which is published to a remote storage.
    `progress` is called with (done, total) while importances are computed. `by` is the score of a task
    (`evaluate/SUITE/TASK`) by which the arms of a study are compared. Raises `UserError` where the file
    cannot be written, and for a score that is not there.
    """
    from raykd.report.page import render

    if out is None:
        sweep = open_sweep(place)
        own_folder(sweep.path)  # of a remote sweep there may be no copy on this machine yet
        written = write(sweep, sweep.path / REPORT, progress, by)
        sweep.storage.push(written)
        return written
    if out.is_dir() or not out.parent.is_dir():  # before anything is computed
        raise _unwritable(out, "it is a folder" if out.is_dir() else f"there is no folder {out.parent}")
    page = build(place, out, time.time(), progress, by)
    try:
        with replacing(out) as temporary:
            temporary.write_text(render(page), encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error.strerror or str(error)) from None
    return out


def build(
    place: SweepFolder | Path,
    out: Path,
    now: float,
    progress: Callable[[int, int], None] | None = None,
    by: str | None = None,
) -> Page:
    """The page of the sweep in `folder` as data. `out` is the file that links start from.

    `now` is the time that the page says it was made at, in unix seconds; `progress` and `by` as of `write`.
    """
    from raykd.report import common, study_sections, sweep_sections

    sweep = open_sweep(place)
    history = views.read(sweep)
    spec = spec_of(history)
    status = views.status(history, sweep)
    if isinstance(spec, StudySpec):
        facts, sections = study_sections.content(spec, history, sweep, out, by)
    elif by is not None:
        raise UserError("--by", "goes with a study", value=by, expected=f"none: {spec.name} is a search")
    else:
        facts, sections = sweep_sections.content(spec, history, sweep, out, progress)
    counts = status["trials"]
    ended = counts["finished"] + counts["stopped"] + counts["failed"]
    said = ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "none yet"
    so_far = f"{ended} of {history.total} trials have ended"
    banner = {
        "running": f"It is still running: {so_far}. What is below is how it stood when this page was made; "
        "`raykd report` again brings it up to date.",
        "interrupted": f"It is not complete: {so_far}, and nothing drives it. "
        f"`{command(spec.resumes_by, sweep)}` goes on with it.",
    }
    return Page(
        title=spec.name,
        kicker=f"raykd {spec.kind}",
        made=f"Made {common.moment(now)} from {len(history.trials)} trials: {said}.",
        banner=banner.get(status["state"], ""),
        facts=facts,
        sections=sections,
    )


def _unwritable(out: Path, why: str) -> UserError:
    expected = "a file, such as report.html"
    return UserError("--out", f"cannot be written: {why}", value=str(out), expected=expected)
