"""How a trial's teacher is fed: what its spec says, filled in from its file where it says nothing."""

from __future__ import annotations

from trainables.checkpoint_file import read_checkpoint
from trainables.checkpoint_pixels import Feeding, feeding
from trainables.errors import UserError
from trainables.normalisation import IMAGENET
from trainables.trial import TeacherSpec

_known: dict[tuple[object, ...], Feeding | None] = {}  # one file may serve thousands of trials


def own_feeding(spec: TeacherSpec) -> Feeding | None:
    """How the teacher's checkpoint was trained, whatever its spec says.

    None for a teacher that raykd trains, which knows the pixels that every view has, and for a file that
    cannot be read: `check_teacher` says why.
    """
    if spec.checkpoint is None:
        return None
    path = spec.checkpoint.expanduser()
    try:
        stat = path.stat()
    except OSError:
        return None
    key = (path.absolute(), stat.st_mtime_ns, stat.st_size, spec.arch)
    if key not in _known:
        try:
            _known[key] = feeding(spec.arch, read_checkpoint(path, "teacher.checkpoint"))
        except UserError:
            _known[key] = None
    return _known[key]


def filled(spec: TeacherSpec) -> TeacherSpec:
    """`spec` with the mean and deviation that its checkpoint was trained on, unless it names some."""
    found = own_feeding(spec) if spec.mean is None else None
    if found is None:
        return spec
    return spec.model_copy(update=found.normalisation._asdict())


def is_own(spec: TeacherSpec) -> bool:
    """Does the spec name what `filled` would find in its file?"""
    found = own_feeding(spec)
    return spec.mean is not None and found is not None and found.normalisation.like(spec.normalisation)


def remark(spec: TeacherSpec) -> str:
    """A sentence where the teacher is fed in any but the usual way, or there is doubt; else empty."""
    fed, found = spec.normalisation, own_feeding(spec)
    told = f"teacher {spec.arch}: its pixels have {fed.text()}"
    if found is None or not (fed.like(found.normalisation) or found.sure):
        return "" if fed.like(IMAGENET) else f"{told}, by `mean` and `std`"
    if not fed.like(found.normalisation):
        trained = f"by {found.by} it was trained on {found.normalisation.text()}"
        return f"{told}, as the sweep says; {trained}"
    if fed.like(IMAGENET) and found.sure:
        return ""
    return f"{told}, by {found.by}" + (f"; {found.remark}" if found.remark else "")
