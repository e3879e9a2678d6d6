"""The cost of each arm of a study: at equal epochs arms may differ much in compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raykd.ablation.results import ArmResult, Results

_NONE = "–"
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
APART = 1.05  # costs are called equal where their ratio is smaller


def amount(value: float | None) -> str:
    """`1.35 G`: three digits and a prefix, no prefix below a thousand; a dash for no finite value."""
    if value is None or not math.isfinite(value):
        return _NONE
    for size, prefix in _PREFIXES:
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}" if value < 999.5 * size else f"{value / size:.0f} {prefix}"
    return f"{value:.3g}"


def times(ratio: float) -> str:
    """`×1.35`: a multiple of the base's; a dash where it is not finite."""
    return f"×{ratio:.2f}" if math.isfinite(ratio) else _NONE


def costs_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what a trial costs, one row an arm, the base first."""
    columns = ["cost of a trial", "epochs", "steps", "trained parameters", "flops a step", "flops", "seconds"]
    return columns, [
        [
            arm.label,
            str(arm.epochs),
            _NONE if arm.spec.epoch_steps is None else str(arm.epochs * arm.spec.epoch_steps),
            amount(arm.spec.trained_parameters),
            amount(arm.spec.step_flops),
            f"{amount(arm.flops)} ({times(arm.compute)})" if arm.flops is not None else _NONE,
            f"{arm.wall_s:.1f}" if math.isfinite(arm.wall_s) else _NONE,
        ]
        for arm in base_first(results)
    ]


def base_first(results: Results) -> list[ArmResult]:
    """The arms in the order of tables."""
    return sorted(results.arms, key=lambda arm: arm.label != results.rules.base)


def spread_of(arms: Sequence[ArmResult], said: str = "their compute is not: from") -> str:
    """`; their compute is not: from ×0.54 (moco) to ×1.00 (base) of the base's`; empty where it is equal."""
    known = [arm for arm in arms if math.isfinite(arm.compute)]
    if not known:
        return ""
    least, most = min(known, key=lambda a: a.compute), max(known, key=lambda a: a.compute)
    if most.compute < APART * least.compute:
        return ""
    return (
        f"; {said} {times(least.compute)} ({least.label}) to {times(most.compute)} "
        f"({most.label}) of the base's"
    )
