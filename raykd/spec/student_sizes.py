"""The students of a search before it starts: which cannot take the images, and which are over its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykd.spec.search import SearchSpec
from raykd.spec.size_sections import student_key, student_label
from trainables.core.amounts import with_unit
from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec

_OF_STUDENT = ("student.", "data.image_size")  # axes that decide whether a student can take the images


class StudentSizes:
    """Collects the students of configurations that are checked, each once."""

    def __init__(self, spec: SearchSpec) -> None:
        self._spec = spec
        self._sizes: dict[str, dict[str, int]] = {}
        self._refused: dict[str, UserError] = {}  # by student

    def add(self, trial: TrialSpec) -> None:
        """Note the student of a trial. Raises `UserError` where it cannot take the trial's images."""
        from trainables.networks.sizes import student_size

        key = student_key(trial)
        if key not in self._sizes:
            found = student_size(trial.student.model, trial.data.image_size)
            self._sizes[key] = dict(found._asdict())

    def unfit(self, params: Mapping[str, Any], varied: str | None) -> bool:
        """Whether configuration `params` fails for no other reason than that its student does not fit.

        Such a configuration is refused when it is proposed, and the search goes on. Of an unknown network, of
        one whose options are wrong, and of the configuration that stands for the sweep (`varied` "") that is
        not so.
        """
        from trainables.networks.backbones import check_arch

        if varied == "" or not any(name.startswith(_OF_STUDENT) for name in params):
            return False
        try:
            trial = self._spec.trial(params, self._spec.seeds[0])
            check_arch(trial.student.arch, trial.student.section, trial.student.options)
        except UserError:
            return False
        try:
            self.add(trial)
        except UserError as error:
            self._refused.setdefault(student_label(trial), error)
            return True
        return False

    def check_limits(self) -> None:
        """Raise `UserError` where every student that was noted is over a limit."""
        limits = self._spec.limits
        for name, limit in ({} if limits is None else limits.set).items():
            known = [size[name] for size in self._sizes.values() if name in size]
            if known and min(known) > limit:
                raise UserError(
                    f"limits.{name}",
                    f"the smallest student of this search has {with_unit(name, min(known))}",
                    value=with_unit(name, limit),
                    expected=f"at least {with_unit(name, min(known))}, or smaller students on the axes",
                )

    def remarks(self) -> list[str]:
        """Remarks on students that cannot take the images, and on those over a limit."""
        limits = self._spec.limits
        found = [
            f"{label} {error.problem}: configurations with it are refused"
            for label, error in self._refused.items()
        ]
        over = sum(bool(limits.over(size)) for size in self._sizes.values()) if limits is not None else 0
        if over:
            found.append(
                f"limits: {over} of the {len(self._sizes)} students that were looked at are over them; "
                "configurations with these are refused"
            )
        return found
