"""Designs: which arms a study has. Pure functions: settings in, arms out.

one_at_a_time   each factor's levels, the other factors as in the base
leave_one_out   each component removed; the file lists the settings that remove a component
grid            every combination of levels
factorial       every combination, or a fraction of given resolution; for main effects and interactions
compare         named configurations, or whole methods
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from raykd.spec.arms import ArmSpec
from raykd.spec.axis_kinds import same
from raykd.stats.designs import fractional_factorial
from trainables.core.errors import UserError
from trainables.spec.parse import build, join

BASE = "base"
Arms = dict[str, ArmSpec]


def one_at_a_time(factors: Mapping[str, Sequence[Any]], base: Mapping[str, Any]) -> Arms:
    """The base, and an arm for each level of each factor that is not the base's (`base`: flat name -> value).

    With a single factor the base is named by its level, as the other arms are.
    """
    at_base = {name: base.get(name) for name in factors}
    arms: Arms = {label(at_base) if len(factors) == 1 else BASE: ArmSpec(levels=at_base)}
    for name, levels in factors.items():
        for level in levels:
            if not same(level, at_base[name]):
                arms[label({name: level})] = ArmSpec(settings={name: level}, levels={**at_base, name: level})
    return arms


def leave_one_out(components: Mapping[str, Mapping[str, Any]]) -> Arms:
    """The base, and for each component an arm with the settings that remove it."""
    whole = dict.fromkeys(components, "with")
    arms: Arms = {BASE: ArmSpec(levels=whole)}
    for name, settings in components.items():
        arms[f"without {name}"] = ArmSpec(settings=dict(settings), levels={**whole, name: "without"})
    return arms


def compare(arms: Mapping[str, Mapping[str, Any]]) -> Arms:
    """Named configurations: settings by flat name, and their own `method`, `preset` and `epochs`.

    Raises `UserError` for a value that an arm cannot have.
    """
    own = ("method", "preset", "epochs")
    found: Arms = {}
    for name, raw in arms.items():
        settings = {key: value for key, value in raw.items() if key not in own}
        given = {key: raw[key] for key in own if key in raw}
        found[name] = build(ArmSpec, {**given, "settings": settings, "levels": dict(raw)}, join("arms", name))
    return found


def grid(factors: Mapping[str, Sequence[Any]]) -> Arms:
    """Every combination of levels; the first levels are the base's, and that arm is the base."""
    return _combinations(factors, list(itertools.product(*factors.values())))


def factorial(factors: Mapping[str, Sequence[Any]], resolution: int | None) -> Arms:
    """All combinations, or the smallest two-level fraction of at least this resolution; base first.

    Raises `UserError` for a fraction of a factor without exactly two levels.
    """
    if resolution is None:
        return grid(factors)
    wide = [name for name, levels in factors.items() if len(levels) != 2]
    if wide:
        raise UserError(
            f"factors.{wide[0]}",
            "a fraction is for factors of two levels",
            value=list(factors[wide[0]]),
            expected="two levels, or no `resolution` for the full design",
        )
    runs = fractional_factorial(len(factors), resolution).runs.tolist()
    levels = [tuple(of[at] for of, at in zip(factors.values(), run, strict=True)) for run in runs]
    return _combinations(factors, levels)


def design_of(factors: Mapping[str, Sequence[Any]], arms: Mapping[str, ArmSpec]) -> list[list[int]]:
    """(arms, factors): the place of each arm's level in the factor's list; 0 is the base's."""

    def place(levels: Sequence[Any], level: Any) -> int:
        return next(i for i, v in enumerate(levels) if same(v, level))

    return [[place(of, arm.levels[name]) for name, of in factors.items()] for arm in arms.values()]


def label(settings: Mapping[str, Any]) -> str:
    """`gamma=0.1, adapter=mlp`."""
    return ", ".join(f"{name}={_text(value)}" for name, value in settings.items())


def _combinations(factors: Mapping[str, Sequence[Any]], rows: Sequence[tuple[Any, ...]]) -> Arms:
    """An arm for each row of levels."""
    each = [dict(zip(factors, row, strict=True)) for row in rows]
    return {label(settings): ArmSpec(settings=settings, levels=settings) for settings in each}


def _text(value: Any) -> str:
    """A level as a label shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)
