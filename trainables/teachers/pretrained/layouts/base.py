"""What a row of the table of checkpoint layouts says, and the patterns that rows of several files share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainables.spec.normalisation import CIFAR10, CIFAR100, IMAGENET, Normalisation

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"
UNKNOWN = "a backbone alone"  # where keys do not tell the origin

# Where a training script puts the weights, in the order of preference: averaged ones first, as timm does.
CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "state_dict", "model", "model_state_dict",
    "model_state", "net", "net_state_dict", "network", "network_state_dict", "params", "weights", "module",
    "classy_state_dict", "state",
)  # fmt: skip
# DINO's two networks, which are read together.
PAIR = ("teacher", "student")


@dataclass(frozen=True)
class Layout:
    """What the checkpoints of one origin look like.

    Every pattern is a regular expression that is matched at the beginning of a key. `roles` maps a role to
    the pattern of its keys. A key belongs to the first role whose pattern matches; what was matched is cut
    off, and the rest is the name of the key within the role.
    """

    origin: str
    signature: tuple[str, ...]  # each must begin some key
    roles: Mapping[str, str]
    absent: tuple[str, ...] = ()  # none may begin a key
    containers: tuple[str | None, ...] = ()  # names that the weights may lie under; empty: any
    beside: tuple[str, ...] = ()  # names that the file must hold beside the weights
    arguments: tuple[
        str, ...
    ] = ()  # at least one must be among the training's arguments, which the file holds
    metadata: Mapping[str, str] = field(default_factory=dict)  # that the file must carry
    heads: tuple[str, ...] = ()  # a head's layers in this origin, `matrix` for a linear one without bias
    if_classifier: str = ""  # the origin where the head is a classifier in fact; empty: the same
    wide_head: bool = False  # the head's hidden layer is at least as wide as the features, else it classifies
    activation: str = "relu"  # of the head
    renames: tuple[tuple[str, str], ...] = ()  # (pattern of a backbone's key, timm's name)
    attention_heads: Mapping[int, int] = field(default_factory=dict)  # width -> heads, where not timm's
    heads_if_fixed: bool = False  # `attention_heads` holds only where positions are fixed, not learned
    small_stem_padding: int | None = None  # of a 3x3 `conv1`
    # What this origin's code normalises pixels by; None where the architecture says it (timm's files).
    normalisation: Normalisation | None = IMAGENET
    # The same for a network with a 3x3 `conv1`, by its number of classes; unknown for other numbers.
    small_stem_normalisation: Mapping[int, Normalisation] = field(default_factory=dict)
    remark: str = ""  # what a user should know of such a file
    remark_above: int = 0  # the remark is only for files whose `conv1` has more filters


MOMENTUM = "momentum encoder"
MOCO_HEADS = ("linear relu linear", "linear")
DINO_HEADS = (
    "linear gelu linear gelu linear l2_normalise matrix",
    "linear batch_norm gelu linear batch_norm gelu linear l2_normalise matrix",
    "linear l2_normalise matrix",
)
SINGLE = r"(fc|classifier|linear|cls_head|head\.fc|cls_head\.fc|heads\.head)\.(weight|bias)$"
# ResNets for small images as SupContrast and many scripts name them.
SHORTCUTS = ((r"\.shortcut\.", ".downsample."),)
# Meta's names of DINOv2's parts: blocks in chunks, registers, gated layers.
DINOV2 = (
    (r"^register_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
# Keys of `nn.Sequential(*list(resnet.children())[:-1])`: 2 is the ReLU, 3 the pooling.
RESNET_IN_A_ROW = (
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    (r"^4\.", "layer1."),
    (r"^5\.", "layer2."),
    (r"^6\.", "layer3."),
    (r"^7\.", "layer4."),
)
# By classes: what a network with a 3x3 `conv1` of some origins is trained on, and nothing else.
SMALL_STEM = {10: CIFAR10, 100: CIFAR100}
