"""Which GPUs are sick: a count of what went wrong on each, and who it was that failed there.

An error of a GPU's ends no trial at once: it is tried again, on another GPU where there is one. A GPU on
which it happens under two trials is taken out of the sweep. A trial under which it happens again and again,
or under which several GPUs fail, is the more likely cause (a kernel that writes where it must not looks like
a fault of the device): then they are not to blame, and the trial is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

LIMIT = 2  # tasks, or incidents without one, that put a GPU into quarantine


@dataclass
class Incidents:
    """Of one driver: the next one starts with a clean sheet, as a GPU may have been reset since."""

    reasons: dict[str, str] = field(default_factory=dict)  # GPU in quarantine -> what it did last
    _at: dict[str, list[str]] = field(default_factory=dict)  # GPU -> the tasks under which it failed

    def add(self, gpu: str, task: str, reason: str, certain: bool = False) -> bool:
        """The GPU failed under the task (or by itself: ""). True if it is in quarantine with that.

        `certain`: once is enough.
        """
        self._at.setdefault(gpu, []).append(task)
        if gpu not in self.reasons and (certain or self._counted(gpu) >= LIMIT):
            self.reasons[gpu] = reason
        return gpu in self.reasons

    def gpus_of(self, task: str) -> set[str]:
        """The GPUs that failed under this task."""
        return {gpu for gpu, tasks in self._at.items() if task in tasks}

    def times(self, task: str) -> int:
        """How often a GPU failed under this task."""
        return sum(tasks.count(task) for tasks in self._at.values())

    def any_of(self, gpus: Iterable[str]) -> bool:
        """Whether one of these is in quarantine."""
        return any(gpu in self.reasons for gpu in gpus)

    def _counted(self, gpu: str) -> int:
        """Incidents, one a task, without those of tasks under which another GPU failed too."""
        tasks = self._at[gpu]
        alone = {task for task in tasks if task and self.gpus_of(task) == {gpu}}
        return tasks.count("") + len(alone)
