"""How the files look that people bring as teachers: one row of a table for each origin.

A row is known by its keys, after the wrappers that say nothing (`module.` of DataParallel, `_orig_mod.` of
torch.compile) are taken off. It says what each key is part of: roles. A new origin is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainables.normalisation import CIFAR10, CIFAR100, IMAGENET, Normalisation

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"
UNKNOWN = "a backbone alone"  # an origin that its keys do not tell

# Where a training script puts the weights, in the order of preference: averaged ones first, as timm does.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
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
    metadata: Mapping[str, str] = field(default_factory=dict)  # that the file itself must carry
    heads: tuple[str, ...] = ()  # a head's layers in this origin, `matrix` for a linear one without bias
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
_CLASSIFIER = r"(?=(fc|last_linear|classifier(\.\d+)?|head(\.fc|\.l|\.linear)?|head_dist)\.(weight|bias)$)"
_MOMENTUM = "momentum encoder"
_MOCO = {_MOMENTUM: r"encoder_k\.", "queue": r"queue"}
_MOCO_HEADS = ("linear relu linear", "linear")
_TAUGHT = {
    "teacher": r"teacher_encoder_q\.",
    "teacher's momentum encoder": r"teacher_encoder_k\.",
    **_MOCO,
}
_SOLO = {
    CLASSIFIER: r"classifier\.(?=(weight|bias)$)",
    _MOMENTUM: r"momentum_(backbone|encoder)\.",
    "momentum head": r"momentum_(projector|head)\.",
    "predictor": r"(momentum_)?predictor\.",
    "prototypes": r"prototypes\.",
    "queue": r"queue",
}
_CIFAR = {10: CIFAR10, 100: CIFAR100}  # what solo-learn's 3x3 stem is for, and nothing else
_TWELVE = {192: 12, 384: 12}  # of solo-learn's MoCo v3 and MAE; timm's of these widths have 3 and 6
_DINO_HEADS = (
    "linear gelu linear gelu linear l2_normalise matrix",
    "linear batch_norm gelu linear batch_norm gelu linear l2_normalise matrix",
    "linear l2_normalise matrix",
)
_VIT = (r"cls_token$", r"blocks\.0\.")
# `nn.Sequential(*list(resnet.children())[:-1])`: 2 is the ReLU, 3 the pooling.
_RESNET_IN_A_ROW = (
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    (r"^4\.", "layer1."),
    (r"^5\.", "layer2."),
    (r"^6\.", "layer3."),
    (r"^7\.", "layer4."),
)
_TORCHVISION_VIT = (
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

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        origin="raykd",
        signature=(r"backbone\.",),
        roles={BACKBONE: r"backbone\.", HEAD: r"head\.", CLASSIFIER: r"classifier\."},
        metadata={"format": "raykd"},  # the head's layers are in the metadata, too
    ),
    Layout(
        origin="retro",
        signature=(r"(encoder_q\.)?transfer\.", r"encoder_q\.", r"teacher_encoder_q\."),
        roles={
            "adapter": r"(encoder_q\.)?transfer\.",
            "teacher's head, reused": r"encoder_q\.(fc|classifier)\.",
            BACKBONE: r"encoder_q\.",
            **_TAUGHT,
        },
        remark="its head is the teacher's, reused through the adapter: it does not fit the student's own "
        "features, so this file offers the student's backbone alone",
    ),
    Layout(
        origin="disco",
        signature=(r"encoder_q\.", r"teacher_encoder_q\."),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.", BACKBONE: r"encoder_q\.", **_TAUGHT},
        heads=_MOCO_HEADS,
    ),
    Layout(
        origin="moco_v2",
        signature=(r"encoder_q\.(fc|classifier)\.\d+\.weight",),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.(?=\d)", BACKBONE: r"encoder_q\.", **_MOCO},
        heads=_MOCO_HEADS[:1],
    ),
    Layout(
        origin="moco_v1",
        signature=(r"encoder_q\.(fc|classifier)\.weight",),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.", BACKBONE: r"encoder_q\.", **_MOCO},
        heads=_MOCO_HEADS[1:],
    ),
    Layout(
        origin="moco",  # its head was taken off
        signature=(r"encoder_q\.",),
        roles={BACKBONE: r"encoder_q\.", **_MOCO},
    ),
    Layout(
        origin="moco_v3",
        signature=(r"base_encoder\.",),
        roles={
            HEAD: r"base_encoder\.(fc|head)\.(?=\d)",
            BACKBONE: r"base_encoder\.",
            _MOMENTUM: r"momentum_encoder\.",
            "predictor": r"predictor\.",
        },
        heads=(
            "matrix batch_norm relu matrix batch_norm",
            "matrix batch_norm relu matrix batch_norm relu matrix batch_norm",
        ),
        attention_heads={384: 12},  # its ViT-S; timm's has 6
    ),
    Layout(
        origin="dino",
        signature=(r"teacher\.backbone\.",),
        roles={BACKBONE: r"teacher\.backbone\.", HEAD: r"teacher\.head\.", "student": r"student\."},
        heads=_DINO_HEADS,
        activation="gelu",
    ),
    Layout(
        origin="seed",
        signature=(r"student\.", r"teacher\."),
        roles={
            HEAD: r"student\.fc\.",
            BACKBONE: r"student\.",
            "teacher": r"teacher\.",
            "queue": r"queue",
        },
        heads=_MOCO_HEADS,
    ),
    Layout(
        origin="swav",
        signature=(r"(projection_head|prototypes)\.", r"layer1\.0\."),
        roles={HEAD: r"projection_head\.", "prototypes": r"prototypes", BACKBONE: ""},
        heads=("linear batch_norm relu linear", "linear"),
        remark="this is one of SwAV's own wider networks (w2, w4); it is not wide_resnet50_2, and neither "
        "timm nor torchvision has it",
        remark_above=64,
    ),
    Layout(
        origin="solo-learn",
        signature=(r"(backbone|encoder)\.", r"projector\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"projector\.", **_SOLO},
        attention_heads=_TWELVE,
        heads_if_fixed=True,
        small_stem_padding=2,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="solo-learn dino",
        signature=(r"(backbone|encoder)\.", r"head\.mlp\.", r"head\.last_layer\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"head\.", **_SOLO},
        heads=_DINO_HEADS,
        activation="gelu",
        attention_heads=_TWELVE,
        heads_if_fixed=True,
        small_stem_padding=2,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="solo-learn, no head",
        signature=(r"(backbone|encoder)\.", r"(classifier\.weight|momentum_)"),
        roles={BACKBONE: r"(backbone|encoder)\.", **_SOLO},
        attention_heads=_TWELVE,
        heads_if_fixed=True,
        small_stem_padding=2,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="lightly",
        signature=(r"backbone\.", r"projection_head\.layers\."),
        absent=(r"anchor_",),  # MSN, whose head has other activations
        roles={
            BACKBONE: r"backbone\.",
            HEAD: r"projection_head\.layers\.",
            _MOMENTUM: r"(backbone_momentum|momentum_backbone)\.",
            "momentum head": r"(projection_head_momentum|momentum_projection_head)\.",
            "predictor": r"prediction_head\.",
            "prototypes": r"prototypes\.",
        },
        renames=_RESNET_IN_A_ROW,
    ),
    Layout(
        origin="lightly dino",
        signature=(r"teacher_backbone\.",),
        roles={
            BACKBONE: r"teacher_backbone\.",
            HEAD: r"teacher_head\.",
            "student": r"student_(backbone|head)\.",
        },
        heads=_DINO_HEADS,
        activation="gelu",
        renames=_RESNET_IN_A_ROW,
    ),
    Layout(
        origin=UNKNOWN,
        signature=(r"backbone\.",),
        roles={BACKBONE: r"backbone\."},
        renames=_RESNET_IN_A_ROW,
    ),
    Layout(
        origin="torchvision vit",
        signature=(r"class_token$", r"encoder\.layers\.encoder_layer_0\."),
        roles={CLASSIFIER: r"heads\.head\.", BACKBONE: ""},
        renames=_TORCHVISION_VIT,
    ),
    Layout(
        origin="moco_v2 without its prefix",  # the query encoder, saved by itself
        signature=(r"(fc|classifier)\.0\.weight$", r"(fc|classifier)\.2\.weight$"),
        absent=(r"features\.", r"(fc|classifier)\.1\."),
        roles={HEAD: r"(fc|classifier)\.(?=\d)", BACKBONE: ""},
        heads=_MOCO_HEADS[:1],
    ),
    Layout(
        origin="compress",
        signature=("",),
        containers=("model",),
        beside=("opt",),
        roles={HEAD: r"fc\.(?=(weight|bias)$)", BACKBONE: ""},
        heads=("linear",),
    ),
    Layout(
        origin="deit, distilled",
        signature=(*_VIT, r"dist_token$"),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
    ),
    Layout(
        origin="deit",
        signature=(*_VIT, r"head\.weight$"),
        containers=("model",),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
        normalisation=None,  # others keep a timm ViT under `model`, too
    ),
    Layout(
        origin="dino or timm, a backbone alone",
        signature=_VIT,
        absent=(r"head",),
        containers=(None,),
        roles={BACKBONE: ""},
        normalisation=None,
    ),
    Layout(
        origin="torchvision",
        signature=(r"features\.\d+\.",),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
    ),
    Layout(
        # Both libraries name the parts of a standard ResNet alike.
        origin="torchvision or timm",
        signature=(r"conv1\.weight", r"layer1\.0\.conv1\."),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
        normalisation=None,
    ),
    Layout(
        origin="timm",
        signature=(r"",),
        roles={CLASSIFIER: _CLASSIFIER, BACKBONE: ""},
        normalisation=None,
    ),
)
