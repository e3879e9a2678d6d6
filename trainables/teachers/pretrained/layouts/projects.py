"""Projects and libraries with names of their own for the parts of a network."""

from __future__ import annotations

from functools import partial

from trainables.teachers.pretrained.layouts.base import (
    BACKBONE,
    CLASSIFIER,
    DINO_HEADS,
    HEAD,
    MOMENTUM,
    RESNET_IN_A_ROW,
    SMALL_STEM,
    Layout,
)

ORDER = 30

SOLO = {
    CLASSIFIER: r"classifier\.(?=(weight|bias)$)",
    MOMENTUM: r"momentum_(backbone|encoder)\.",
    "momentum head": r"momentum_(projector|head)\.",
    "predictor": r"(momentum_)?predictor\.",
    "prototypes": r"prototypes\.",
    "queue": r"queue",
}
solo_learn = partial(
    Layout,
    attention_heads={192: 12, 384: 12},  # of its MoCo v3 and MAE; at these widths timm has 3 and 6
    heads_if_fixed=True,
    small_stem_padding=2,
    small_stem_normalisation=SMALL_STEM,
)

LAYOUTS = (
    Layout(
        origin="open_clip or clip",
        signature=(r"visual\.", r"(transformer|text|token_embedding|text_model)\."),
        roles={
            "projection of images": r"visual\.(proj$|head\.)",
            BACKBONE: r"visual\.(trunk\.)?",
            "text": r"(transformer|text|token_embedding|text_projection|ln_final|positional_embedding)",
            "scale": r"logit_(scale|bias)$",
        },
        normalisation=None,  # timm's configuration of its CLIP networks has it
    ),
    Layout(
        origin="vissl",
        signature=(r"trunk\.(base_model\.)?_feature_blocks\.",),
        roles={
            BACKBONE: r"trunk\.(base_model\.)?_feature_blocks\.",
            "head that is not read": r"heads\.",
        },
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
        origin="barlow twins",
        signature=(r"backbone\.", r"projector\.", r"bn\.running_mean"),
        roles={BACKBONE: r"backbone\.", HEAD: r"projector\.", "normalisation of its loss": r"bn\."},
        heads=("matrix batch_norm relu matrix batch_norm relu matrix", "matrix"),
    ),
    Layout(
        origin="vicreg",
        signature=(r"backbone\.", r"(maps_)?projector\."),
        absent=(r"classifier\.", r"momentum_", r"predictor\.", r"prototypes\."),
        containers=("model",),
        roles={BACKBONE: r"backbone\.", HEAD: r"projector\.", "maps' head": r"maps_projector\."},
        heads=tuple("linear batch_norm relu " * layers + "matrix" for layers in range(4)),
    ),
    solo_learn(
        origin="solo-learn",
        signature=(r"(backbone|encoder)\.", r"projector\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"projector\.", **SOLO},
    ),
    solo_learn(
        origin="solo-learn dino",
        signature=(r"(backbone|encoder)\.", r"head\.mlp\.", r"head\.last_layer\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"head\.", **SOLO},
        heads=DINO_HEADS,
    ),
    solo_learn(
        origin="solo-learn, no head",
        signature=(r"(backbone|encoder)\.", r"(classifier\.weight|momentum_)"),
        roles={BACKBONE: r"(backbone|encoder)\.", **SOLO},
    ),
    Layout(
        origin="lightly",
        signature=(r"backbone\.", r"projection_head\.layers\."),
        absent=(r"anchor_",),  # excludes MSN: its head has other activations
        roles={
            BACKBONE: r"backbone\.",
            HEAD: r"projection_head\.layers\.",
            MOMENTUM: r"(backbone_momentum|momentum_backbone)\.",
            "momentum head": r"(projection_head_momentum|momentum_projection_head)\.",
            "predictor": r"prediction_head\.",
            "prototypes": r"prototypes\.",
        },
        renames=RESNET_IN_A_ROW,
    ),
    Layout(
        origin="lightly dino",
        signature=(r"teacher_backbone\.",),
        roles={
            BACKBONE: r"teacher_backbone\.",
            HEAD: r"teacher_head\.",
            "student": r"student_(backbone|head)\.",
        },
        heads=DINO_HEADS,
        renames=RESNET_IN_A_ROW,
    ),
)
