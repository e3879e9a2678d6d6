"""The engine: searches and ablates distillation recipes over a Ray cluster. It knows Ray, Optuna and Arrow,
and names no method: what a trial trains is in `trainables`.

    sweep = raykd.search("quickstart", overrides={"samples": 8})
    sweep = raykd.open("quickstart")
    student = sweep.best().student()

Its rooms, each built on some of those before it (`tests/test_imports.py` has the table):

  process   this process: its signals and its standard streams
  stats     intervals, tests, designs: pure functions over arrays
  storage   where sweeps lie: folders, object stores, the lock of a driver
  spec      what users write, and what it means
  records   what happened: the ledger, the history, tables, TensorBoard
  lanes     where trials run: Ray, warm worker groups, the broker
  searching what is tried next, what goes on, which axes matter
  overview  several sweeps at once: the list of a storage, and comparisons
  evaluations what students are worth on suites of tasks
  console   what the terminal shows, and how things are worded
  export    a trial as a student for others; a checkpoint as a teacher
  ablation  studies: designs, the guard, rounds of replicates, conclusions
  runs      from a spec to its results: plan, run, resume, repair
  report    one HTML page of a sweep or a study
  api       what Python code calls, and the command line with it
  doctor    checks of this machine or of a cluster
  cli       the verbs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raykd.ablation.study_file import StudyFile
    from raykd.api.evaluating import evaluate
    from raykd.api.starting import ablate, search
    from raykd.api.sweep import Study, Sweep, compare, open
    from raykd.api.trial import Trial
    from raykd.spec.search import SearchSpec
    from trainables.core.errors import SweepFailed, UserError

    __version__: str

__all__ = [
    "SearchSpec",
    "Study",
    "StudyFile",
    "Sweep",
    "SweepFailed",
    "Trial",
    "UserError",
    "__version__",
    "ablate",
    "compare",
    "evaluate",
    "open",
    "search",
]

if not TYPE_CHECKING:
    # Only what is asked for is imported: `raykd --help` starts without torch and Ray, and quickly.
    _HOMES = {
        "raykd.ablation.study_file": ("StudyFile",),
        "raykd.api.evaluating": ("evaluate",),
        "raykd.api.starting": ("ablate", "search"),
        "raykd.api.sweep": ("Study", "Sweep", "compare", "open"),
        "raykd.api.trial": ("Trial",),
        "raykd.spec.search": ("SearchSpec",),
        "trainables.core.errors": ("SweepFailed", "UserError"),
    }

    def __getattr__(name):
        from importlib import import_module

        if name == "__version__":
            from raykd.process.version import version

            return version()
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module 'raykd' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
