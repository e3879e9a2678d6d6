"""What one origin's files look like: the parts that the rows of `checkpoint_layouts` are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainables.spec.normalisation import IMAGENET, Normalisation

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"
UNKNOWN = "a backbone alone"  # an origin that its keys do not tell

# Where a training script puts the weights, in the order of preference: averaged ones first, as timm does.
CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "state_dict", "model", "model_state_dict",
    "model_state", "net", "net_state_dict", "network", "network_state_dict", "params", "weights", "module",
    "classy_state_dict", "state",
)  # fmt: skip
# DINO's two, which are read together.
PAIR = ("teacher", "student")


@dataclass(frozen=True)
class Layout:
    """One origin.

    `roles` maps a role to the pattern its keys begin with; the first that fits has the key, and what the
    pattern matched is cut off to give the key's name within the role.
    """

    origin: str
    signature: tuple[str, ...]  # each must begin some key
    roles: Mapping[str, str]
    absent: tuple[str, ...] = ()  # none may begin a key
    containers: tuple[str | None, ...] = ()  # that the weights lie under; empty: under any
    beside: tuple[str, ...] = ()  # what else the file holds beside the weights
    arguments: tuple[str, ...] = ()  # one of them must be among the arguments of the training in the file
    metadata: Mapping[str, str] = field(default_factory=dict)  # that the file itself must carry
    heads: tuple[str, ...] = ()  # a head's layers in this origin, `matrix` for a linear one without bias
    if_classifier: str = ""  # origin of a file whose head turns out to be a classifier; empty: the same
    wide_head: bool = False  # whose hidden layer is no narrower than the features: a narrower one classifies
    activation: str = "relu"  # of the head
    renames: tuple[tuple[str, str], ...] = ()  # other names of a backbone's parts -> timm's
    attention_heads: Mapping[int, int] = field(default_factory=dict)  # width -> heads, where not timm's
    heads_if_fixed: bool = False  # those only where positions are fixed, not learned
    small_stem_padding: int | None = None  # of a 3x3 `conv1`
    # What this origin's code normalises pixels by; None where the architecture says it (timm's files).
    normalisation: Normalisation | None = IMAGENET
    # Likewise of a network with a 3x3 `conv1`, by its number of classes; other numbers: unknown.
    small_stem_normalisation: Mapping[int, Normalisation] = field(default_factory=dict)
    remark: str = ""  # what a user should know of such a file
    remark_above: int = 0  # only of a file whose `conv1` has more filters


# Classifiers of timm's and torchvision's families. `head.norm` (ConvNeXt) is the backbone's, so no `head.*`.
CLASSIFYING = (
    r"(?=(fc|last_linear|linear|classifier(\.\d+)?|head(\.fc|\.l|\.linear)?|head_dist)\.(weight|bias)$)"
)
MOMENTUM = "momentum encoder"
MOCO = {MOMENTUM: r"encoder_k\.", "queue": r"queue"}
MOCO_HEADS = ("linear relu linear", "linear")
TAUGHT = {
    "teacher": r"teacher_encoder_q\.",
    "teacher's momentum encoder": r"teacher_encoder_k\.",
    **MOCO,
}
SOLO = {
    CLASSIFIER: r"classifier\.(?=(weight|bias)$)",
    MOMENTUM: r"momentum_(backbone|encoder)\.",
    "momentum head": r"momentum_(projector|head)\.",
    "predictor": r"(momentum_)?predictor\.",
    "prototypes": r"prototypes\.",
    "queue": r"queue",
}
TWELVE = {192: 12, 384: 12}  # of solo-learn's MoCo v3 and MAE; timm's of these widths have 3 and 6
DINO_HEADS = (
    "linear gelu linear gelu linear l2_normalise matrix",
    "linear batch_norm gelu linear batch_norm gelu linear l2_normalise matrix",
    "linear l2_normalise matrix",
)
VIT = (r"cls_token$", r"blocks\.0\.")
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
# `nn.Sequential(*list(resnet.children())[:-1])`: 2 is the ReLU, 3 the pooling.
RESNET_IN_A_ROW = (
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    (r"^4\.", "layer1."),
    (r"^5\.", "layer2."),
    (r"^6\.", "layer3."),
    (r"^7\.", "layer4."),
)
TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
