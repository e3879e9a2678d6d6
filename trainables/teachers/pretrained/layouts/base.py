"""A row of the table of checkpoint layouts, and the patterns that rows of several files share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainables.spec.normalisation import CIFAR10, CIFAR100, IMAGENET, Normalisation

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"
MASKED = "masked training"  # the role of what only masked training needs
UNKNOWN = "a backbone alone"  # if the keys do not identify the origin

# Names under which training scripts save the weights, in the order of preference: averaged first, as in timm.
CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "state_dict", "model", "model_state_dict",
    "model_state", "net", "net_state_dict", "network", "network_state_dict", "params", "weights", "module",
    "classy_state_dict", "state",
)  # fmt: skip
# DINO's two networks. They are read together.
PAIR = ("teacher", "student")


@dataclass(frozen=True)
class Layout:
    """The layout of one origin's checkpoints.

    Every pattern is a regular expression that is matched at the beginning of a key. `roles` maps a role to
    the pattern of its keys. A key belongs to the first role whose pattern matches. The matched text is cut
    off; the rest is the name of the key within the role.
    """

    origin: str
    signature: tuple[str, ...]  # each pattern must match some key
    roles: Mapping[str, str]
    absent: tuple[str, ...] = ()  # no pattern may match a key
    containers: tuple[str | None, ...] = ()  # allowed containers of the weights; empty: any
    beside: tuple[str, ...] = ()  # names that the file must have beside the weights
    arguments: tuple[str, ...] = ()  # at least one must be among the training's arguments in the file
    metadata: Mapping[str, str] = field(default_factory=dict)  # required in the file's metadata
    heads: tuple[str, ...] = ()  # allowed layers of a head; `matrix` is a linear layer without bias
    if_classifier: str = ""  # the origin if the head proves to be a classifier; empty: the same
    wide_head: bool = False  # a head with a hidden layer narrower than the features is a classifier
    renames: tuple[tuple[str, str], ...] = ()  # (pattern of a backbone's key, timm's name)
    attention_heads: Mapping[int, int] = field(default_factory=dict)  # width -> heads, if not as in timm
    heads_if_fixed: bool = False  # `attention_heads` applies only to fixed positions, not to learned ones
    small_stem_padding: int | None = None  # of a 3x3 `conv1`
    # Pixel normalisation in this origin's code; None if it depends on the architecture (timm's files).
    normalisation: Normalisation | None = IMAGENET
    # Number of classes -> normalisation, for a network with a 3x3 `conv1`; unknown for other numbers.
    small_stem_normalisation: Mapping[int, Normalisation] = field(default_factory=dict)
    remark: str = ""  # a remark for the user of such a file
    remark_above: int = 0  # if set, the remark is only for files whose `conv1` has more filters

    @property
    def activation(self) -> str:
        """The activation in a head of this origin."""
        return "gelu" if any("gelu" in head for head in self.heads) else "relu"


MOMENTUM = "momentum encoder"
MOCO_HEADS = ("linear relu linear", "linear")
DINO_HEADS = (
    "linear gelu linear gelu linear l2_normalise matrix",
    "linear batch_norm gelu linear batch_norm gelu linear l2_normalise matrix",
    "linear l2_normalise matrix",
)
SINGLE = r"(fc|classifier|linear|cls_head|head\.fc|cls_head\.fc|heads\.head)\.(weight|bias)$"
# Names in the ResNets for small images of SupContrast and many scripts.
SHORTCUTS = ((r"\.shortcut\.", ".downsample."),)
# Names in Meta's DINOv2: blocks in chunks, registers, gated layers.
DINOV2 = (
    (r"^register_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
# Keys of `nn.Sequential(*list(resnet.children())[:-1])`: 2 is the ReLU, 3 the pooling.
RESNET_IN_A_ROW = (
    *((r"^0\.", "conv1."), (r"^1\.", "bn1.")),
    *((rf"^{stage + 3}\.", f"layer{stage}.") for stage in range(1, 5)),
)
# Number of classes -> normalisation, for origins that train networks with a 3x3 `conv1` on CIFAR alone.
SMALL_STEM = {10: CIFAR10, 100: CIFAR100}
