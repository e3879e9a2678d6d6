"""What the keys of a checkpoint say, by the table of `checkpoint_layouts`: origin, roles, names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from trainables.checkpoint_layouts import LAYOUTS, Layout

_WRAPPERS = ("module.", "_orig_mod.")


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the wrappers that every key begins with."""
    named = dict(tensors)
    for _ in range(len(_WRAPPERS) * 2):
        for wrapper in _WRAPPERS:
            if named and all(key.startswith(wrapper) for key in named):
                named = {key.removeprefix(wrapper): value for key, value in named.items()}
    return named


def find_layout(
    keys: Sequence[str],
    metadata: Mapping[str, str],
    container: str | None = None,
    beside: Collection[str] = (),
) -> Layout:
    """The first row that fits; the last one fits everything."""

    def begins(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in keys)

    for layout in LAYOUTS:
        if (
            all(metadata.get(name) == value for name, value in layout.metadata.items())
            and (not layout.containers or container in layout.containers)
            and set(layout.beside) <= set(beside)
            and all(begins(pattern) for pattern in layout.signature)
            and not any(begins(pattern) for pattern in layout.absent)
        ):
            return layout
    raise LookupError("the last layout fits everything")


def split_roles(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Role -> its tensors by their names within it. Keys of no role are under `other: FIRST PART`."""
    roles: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        for role, pattern in layout.roles.items():
            if match := re.match(pattern, key):
                roles.setdefault(role, {})[key[match.end() :]] = tensor
                break
        else:
            roles.setdefault(f"other: {key.split('.')[0]}", {})[key] = tensor
    return roles


def namings(layout: Layout, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """A backbone's tensors under the names in the file and, where a row knows others, under timm's."""
    found = [dict(tensors)]
    if layout.renames:
        renamed: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            name = key
            for pattern, replacement in layout.renames:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
        found.append(renamed)
    return found


def attention_heads(layout: Layout, backbone: Mapping[str, Tensor]) -> int | None:
    """How many attention heads this origin's code gives such a transformer; None where as many as timm's.

    No shape tells them. Fixed positions are known by the class token's, which is zero.
    """
    if "cls_token" not in backbone or "pos_embed" not in backbone:
        return None
    if layout.heads_if_fixed and backbone["pos_embed"][0, 0].any():
        return None
    return layout.attention_heads.get(backbone["cls_token"].shape[-1])
