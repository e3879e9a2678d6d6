"""The search spaces, ablation studies and suites of evaluations that come with raykd."""

from __future__ import annotations

from pathlib import Path

# In a wheel they lie in the package. In a checkout that is a link to the folder in its root, which a copy of
# the checkout may have lost.
_PACKAGE = Path(__file__).resolve().parents[1]
SPACES = next(
    (folder for at in (_PACKAGE, _PACKAGE.parent) if (folder := at / "search_spaces").is_dir()),
    _PACKAGE / "search_spaces",
).resolve()


def spaces() -> dict[str, Path]:
    """Every search space that comes with raykd, by name."""
    return {file.stem: file for file in sorted(SPACES.glob("*.yaml"))}


def studies() -> dict[str, Path]:
    """Every ablation study that comes with raykd, by name (`rrkd_anchors`)."""
    return {file.stem: file for file in sorted((SPACES / "ablations").glob("*.yaml"))}


def suites() -> dict[str, Path]:
    """Every suite of evaluations that comes with raykd, by name (`retro`)."""
    return {file.stem: file for file in sorted((SPACES / "suites").glob("*.yaml"))}
