"""Presets of a study file: the same question at another scale, chosen by `--preset NAME`.

    presets:
      paper:
        base: {student: {arch: efficientnet_b0}, data: {name: imagenet, image_size: 224}, epochs: 200}
        replicates: 3

A section under the `base` of a preset replaces that section of the file's `base`. Any other key of a preset
replaces that key of the file. The study with a preset has its own folder, STUDY_NAME.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykd.spec.document import parse_yaml
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, join

PRESET = "preset"  # `preset: NAME`, as `--set preset=NAME` writes it too
PRESETS = "presets"


def with_preset(raw: Mapping[str, Any], overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """The study with the chosen preset laid over it; `raw` without its presets where none is chosen.

    `preset=NAME` among the `overrides` chooses one, or `preset: NAME` in the file. Raises `UserError` for an
    unknown preset.
    """
    study = {key: value for key, value in raw.items() if key not in (PRESET, PRESETS)}
    presets = presets_of(raw)
    name = next((chosen for o in reversed(overrides) if (chosen := _chosen(o))), raw.get(PRESET))
    if name is None:
        return study
    if name not in presets:
        problem = "no such preset of this study" if presets else "this study has no presets"
        raise UserError(PRESET, problem, value=name, choices=presets)
    over = presets[name]
    base = as_mapping(study.get("base"), "base")
    if "base" in over:
        base |= as_mapping(over["base"], join(PRESETS, name, "base"))
    named = {"name": f"{study['name']}_{name}"} if "name" in study else {}  # what a pipe holds may have none
    return {**study, **named, **over, "base": base}


def presets_of(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The presets of a study file by name. Raises `UserError` where one is no mapping."""
    written = as_mapping(raw.get(PRESETS), PRESETS)
    return {name: as_mapping(over, join(PRESETS, name)) for name, over in written.items()}


def others(overrides: list[str] | tuple[str, ...]) -> list[str]:
    """The overrides that choose no preset."""
    return [override for override in overrides if _chosen(override) is None]


def _chosen(override: str) -> str | None:
    """The preset that `preset=NAME` chooses; None for any other override."""
    path, equals, text = override.partition("=")
    if not equals or path.strip() != PRESET:
        return None
    name = parse_yaml(text, f"--set {override}")
    if not isinstance(name, str):
        raise UserError(PRESET, "is not a name", value=name, expected="a preset of the study, such as paper")
    return name
