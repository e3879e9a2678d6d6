"""Origin, roles and names of a checkpoint's keys, by the table in `pretrained.layouts`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from trainables.teachers.pretrained.layouts import LAYOUTS
from trainables.teachers.pretrained.layouts.base import BACKBONE, MASKED, Layout
from trainables.teachers.pretrained.timm_shapes import in_timms_shapes

# Words that DataParallel, torch.compile, FSDP, Lightning's Fabric and activation checkpointing add to names.
_WRAPPER = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_forward_module|_checkpoint_wrapped_module"
    r"|_original_module)\."
)
# First words of a network's keys in training scripts, in the order of preference: averages first.
_NETWORKS = (
    "ema_model", "model_ema", "ema", "averaged_model", "swa_model", "model", "net", "online_model",
    "base_model", "_model", "wrapped_model", "inner_model", "feature_extractor", "image_encoder",
    "vision_model", "visual_encoder", "vision_encoder", "encoder", "trunk", "cnn", "extractor",
)  # fmt: skip
# First words that belong to a network's own names. All keys may begin with one if the classifier was removed.
_OWN_WORDS = frozenset(["features", "blocks", "stages", "layers", "levels", "body", "network"])
# Weights that only masked training needs; timm drops them, too.
_MASKED = re.compile(
    r"(mask_token|masked_embed|mask_embed)$"
    r"|decoder_(embed|blocks|norm|pred|pos_embed)(\.|$)",
)
_COUNTERS = ("n_averaged", "initted", "step", "num_updates", "decay", "_extra_state")


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the wrappers' words anywhere in the keys.

    Unchanged if two keys would become equal or a key would become empty.
    """
    named = {_WRAPPER.sub("", key): value for key, value in tensors.items()}
    return named if len(named) == len(tensors) and "" not in named else dict(tensors)


def without_first_word(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the network without the first word of its keys, the other weights with their full names).

    If all keys begin with the same word, it is removed whatever it is; otherwise only a usual word is. If
    nothing is removed, the second part is empty.
    """
    words = {key.partition(".")[0] for key in tensors if "." in key}
    if len(words) == 1 and all("." in key for key in tensors) and not words & _OWN_WORDS:
        chosen = words.pop()
    else:
        chosen = next((word for word in _NETWORKS if word in words), "")
    inside = {key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(f"{chosen}.")}
    beside = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{chosen}.")}
    # A network has at least two layers.
    if not chosen or len({key.rpartition(".")[0] for key in inside}) < 2:
        return dict(tensors), {}
    return inside, beside


def find_layout(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    container: str | None = None,
    beside: Collection[str] = (),
    arguments: Collection[str] = (),
) -> Layout:
    """The first row that fits; the last row fits everything.

    `beside` and `arguments` are the names beside the weights and the names of the training's arguments.
    """

    def begins(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in tensors)

    for layout in LAYOUTS:
        if (
            all(metadata.get(name) == value for name, value in layout.metadata.items())
            and (not layout.containers or container in layout.containers)
            and set(layout.beside) <= set(beside)
            and (not layout.arguments or set(layout.arguments) & set(arguments))
            and all(begins(pattern) for pattern in layout.signature)
            and not any(begins(pattern) for pattern in layout.absent)
        ):
            return layout
    raise LookupError("the last layout fits everything")


def split_roles(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Role -> its tensors by their names in it. Keys without a role are in the role `other: FIRST PART`."""
    roles: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        for role, pattern in layout.roles.items():
            if match := re.match(pattern, key):
                roles.setdefault(role, {})[key[match.end() :]] = tensor
                break
        else:
            roles.setdefault(f"other: {key.split('.')[0]}", {})[key] = tensor
    backbone = roles.get(BACKBONE, {})
    for name in [name for name in backbone if _MASKED.match(name)]:
        roles.setdefault(MASKED, {})[name] = backbone.pop(name)
    for name in [name for name in backbone if name in _COUNTERS]:
        roles.setdefault("counters", {})[name] = backbone.pop(name)
    return roles


def namings(layout: Layout, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """A backbone's tensors under the names in the file and, if the row's renames apply, under timm's."""
    found = [dict(tensors)]
    if layout.renames:
        renamed: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            name = key
            for pattern, replacement in layout.renames:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
        renamed = in_timms_shapes(renamed)
        if renamed.keys() != tensors.keys():
            registers = any(key.endswith("register_tokens") for key in tensors)
            found.append(_class_token_placed(renamed) if registers else renamed)
    return found


def _class_token_placed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's transformer with registers in timm's form.

    DINOv2 has a position for the class token and timm has none, so the position is added to the token.
    """
    placed = dict(tensors)
    token, positions = tensors.get("cls_token"), tensors.get("pos_embed")
    if token is not None and positions is not None and positions.ndim == 3:
        placed["cls_token"] = token.float() + positions[:, :1].float()
        placed["pos_embed"] = positions[:, 1:]
    return placed


def attention_heads(layout: Layout, backbone: Mapping[str, Tensor]) -> int | None:
    """The number of attention heads of this transformer in the origin's code; None if it is timm's.

    Shapes do not show it. Fixed positions are recognised by the class token's position, which is zero.
    """
    if "cls_token" not in backbone or "pos_embed" not in backbone:
        return None
    if layout.heads_if_fixed and backbone["pos_embed"][0, 0].any():
        return None
    return layout.attention_heads.get(backbone["cls_token"].shape[-1])
