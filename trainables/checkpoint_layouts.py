"""How the files look that people bring as teachers: one row of a table for each origin.

A row is known by its keys, after the wrappers that say nothing (`module.` of DataParallel, `_orig_mod.` of
torch.compile) are taken off. It says what each key is part of: roles. A new origin is a new row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from trainables.parts.heads import Layer, linear

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"

# Where a training script puts the weights, in the order of preference: averaged ones first, as timm does.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Layout:
    """One origin.

    `roles` maps a role to the pattern its keys begin with; the first that fits has the key, and what the
    pattern matched is cut off to give the key's name within the role. `head` are the kinds of the head's
    layers, in order, for those layers that have weights and those between.
    """

    origin: str
    signature: tuple[str, ...]  # each must begin some key
    roles: Mapping[str, str]
    head: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)  # that the file itself must carry


# Classifiers of timm's and torchvision's families. `head.norm` (ConvNeXt) is the backbone's, so no `head.*`.
_CLASSIFIER = r"(?=(fc|last_linear|classifier(\.\d+)?|head(\.fc|\.l|\.linear)?|head_dist)\.(weight|bias)$)"
_MOCO = {"momentum encoder": r"encoder_k\.", "queue": r"queue"}

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        origin="raykd",
        signature=(r"backbone\.",),
        roles={BACKBONE: r"backbone\.", HEAD: r"head\."},
        metadata={"format": "raykd"},  # the head's layers are in the metadata, too
    ),
    Layout(
        origin="moco_v2",
        signature=(r"encoder_q\.(fc|classifier)\.0\.weight", r"encoder_q\.(fc|classifier)\.2\.weight"),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.(?=\d)", BACKBONE: r"encoder_q\.", **_MOCO},
        head=("linear", "relu", "linear"),
    ),
    Layout(
        origin="moco_v1",
        signature=(r"encoder_q\.(fc|classifier)\.weight",),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.", BACKBONE: r"encoder_q\.", **_MOCO},
        head=("linear",),
    ),
    Layout(
        origin="moco",  # its head was taken off
        signature=(r"encoder_q\.",),
        roles={BACKBONE: r"encoder_q\.", **_MOCO},
    ),
    Layout(
        origin="torchvision",
        signature=(r"features\.\d+\.",),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
    ),
    Layout(
        # Both libraries name the parts of a standard ResNet alike.
        origin="torchvision or timm",
        signature=(r"conv1\.weight", r"layer1\.0\.conv1\.", r"fc\.weight"),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
    ),
    Layout(origin="timm", signature=(r"",), roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""}),
)


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the wrappers that every key begins with."""
    named = dict(tensors)
    for _ in range(len(_WRAPPERS) * 2):
        for wrapper in _WRAPPERS:
            if named and all(key.startswith(wrapper) for key in named):
                named = {key.removeprefix(wrapper): value for key, value in named.items()}
    return named


def find_layout(keys: Sequence[str], metadata: Mapping[str, str]) -> Layout:
    """The first row that fits; the last one fits everything."""
    for layout in LAYOUTS:
        told = all(metadata.get(name) == value for name, value in layout.metadata.items())
        if told and all(any(re.match(pattern, key) for key in keys) for pattern in layout.signature):
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


def head_layers(layout: Layout, tensors: Mapping[str, Tensor]) -> list[Layer]:
    """The description of a head with the weights `tensors`, by the kinds its layout gives."""
    layers: list[Layer] = []
    for position, kind in enumerate(layout.head):
        if kind == "linear":
            prefix = "" if len(layout.head) == 1 else f"{position}."
            out_dim, in_dim = tensors[f"{prefix}weight"].shape
            layers.append(linear(in_dim, out_dim, bias=f"{prefix}bias" in tensors))
        else:
            layers.append((kind, {}))
    return layers
