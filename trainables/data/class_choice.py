"""The choice of some classes of a data set (`data.classes`): their numbers, and what is left of it."""

from __future__ import annotations

from dataclasses import replace

from trainables.core.errors import UserError
from trainables.data.sources.base import Counts
from trainables.spec.trial import DataSpec

_FIELD = "data.classes"


def of_classes(counts: Counts, spec: DataSpec) -> Counts:
    """`counts` of the images of the classes that `spec` names; of all where it names none.

    `test` stays the number of all test images: how many are left is known once they are read. Raises
    `UserError` for a class that is not there, and for a source that cannot count its classes before reading.
    """
    if spec.classes is None:
        return counts
    kept = numbers_of(spec.classes, counts)
    if not counts.per_class:
        problem = f"{spec.name} does not say how many images each class has before they are read"
        expected = "a source of files with labels (folder, parquet), or none"
        raise UserError(_FIELD, problem, value=list(spec.classes), expected=expected)
    sizes = tuple(counts.per_class[number] for number in kept)
    names = tuple(counts.class_names[number] for number in kept) if counts.class_names else ()
    left = f"classes: {len(kept)} of {counts.classes} are used; of the test images those of these classes"
    return replace(
        counts,
        labelled=sum(sizes),
        classes=len(kept),
        per_class=sizes,
        class_names=names,
        remarks=(*counts.remarks, left),
    )


def numbers_of(classes: tuple[int, ...] | tuple[str, ...], counts: Counts) -> tuple[int, ...]:
    """The numbers of these classes in a data set, ascending. Raises `UserError` for one that is not there."""
    if not counts.classes:
        raise UserError(_FIELD, "these images have no labels", value=list(classes), expected="none")
    numbers = []
    for one in classes:
        if isinstance(one, str) and not counts.class_names:
            expected = f"numbers from 0 to {counts.classes - 1}"
            raise UserError(_FIELD, "the classes here have no names", value=one, expected=expected)
        if isinstance(one, str) and one not in counts.class_names:
            raise UserError(_FIELD, "no such class", value=one, choices=counts.class_names)
        number = counts.class_names.index(one) if isinstance(one, str) else one
        if number >= counts.classes:
            expected = f"at most {counts.classes - 1}"
            raise UserError(_FIELD, "no class has this number", value=one, expected=expected)
        numbers.append(number)
    return tuple(sorted(numbers))
