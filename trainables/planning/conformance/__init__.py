"""What every method must do, raykd's own and a user's: `raykd check-method`, and the test of all methods.

for check in checks_of("cosine"):
    check.run("cosine")              # raises `NotKept`
"""

from __future__ import annotations

from trainables.planning.conformance import declared, trained, workers
from trainables.planning.conformance.base import Check, NotKept

CHECKS: tuple[Check, ...] = (*declared.CHECKS, *trained.CHECKS, *workers.CHECKS)

__all__ = ["CHECKS", "Check", "NotKept", "checks_of"]


def checks_of(name: str) -> list[Check]:
    """The checks that apply to the method of this name, the quick ones first."""
    return [check for check in CHECKS if check.applies(name)]
