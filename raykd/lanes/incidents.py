"""Which GPUs are sick: the failures of each GPU are counted, with the trials that ran on it.

A failure of a GPU does not end a trial at once: the trial is tried again, on another GPU if there is one. A
GPU that fails under two trials is put into quarantine: it is taken out of the sweep. If failures repeat under
one trial, or several GPUs fail under it, then the trial is the more likely cause: a kernel that writes to a
wrong address looks like a fault of the device. The GPUs are not blamed for that, and the trial is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

LIMIT = 2  # so many tasks, or failures without a task, put a GPU into quarantine


@dataclass
class Incidents:
    """The failures that one driver saw. The next driver starts from none: a GPU may have been reset."""

    reasons: dict[str, str] = field(default_factory=dict)  # GPU in quarantine -> its last failure
    _at: dict[str, list[str]] = field(default_factory=dict)  # GPU -> the tasks under which it failed

    def add(self, gpu: str, task: str, reason: str, certain: bool = False) -> bool:
        """Count a failure of the GPU under the task ("" if there was none). True if it is now in quarantine.

        `certain`: one failure is enough.
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
        """Whether one of these GPUs is in quarantine."""
        return any(gpu in self.reasons for gpu in gpus)

    def _counted(self, gpu: str) -> int:
        """The failures that count: one for each task, none for a task under which another GPU failed, too."""
        tasks = self._at[gpu]
        alone = {task for task in tasks if task and self.gpus_of(task) == {gpu}}
        return tasks.count("") + len(alone)
