"""How the files look that people bring as teachers: one row of a table for each origin.

A row is known by its keys, after the words that say nothing (`module` of DataParallel, `_orig_mod` of
torch.compile) are taken out. It says what each key is part of: roles. A new origin is a new row. One key is
no evidence of an origin whose files look like others' (`fc`): such a row asks for more, keys or what lies
beside the weights.
"""

from __future__ import annotations

from trainables.spec.normalisation import CIFAR10, CIFAR100
from trainables.teachers.pretrained.layout import (
    BACKBONE,
    CLASSIFIER,
    CLASSIFYING,
    DINO_HEADS,
    DINOV2,
    HEAD,
    MOCO,
    MOCO_HEADS,
    MOMENTUM,
    PAIR,
    RESNET_IN_A_ROW,
    SHORTCUTS,
    SINGLE,
    SOLO,
    TAUGHT,
    TORCHVISION_VIT,
    TWELVE,
    UNKNOWN,
    VIT,
    Layout,
)

_CIFAR = {10: CIFAR10, 100: CIFAR100}  # by classes: what a 3x3 stem of these origins is for, and nothing else

__all__ = ["LAYOUTS", "Layout"]

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
            **TAUGHT,
        },
        remark="its head is the teacher's, reused through the adapter: it does not fit the student's own "
        "features, so this file offers the student's backbone alone",
    ),
    Layout(
        origin="disco",
        signature=(r"encoder_q\.", r"teacher_encoder_q\."),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.", BACKBONE: r"encoder_q\.", **TAUGHT},
        heads=MOCO_HEADS,
    ),
    Layout(
        origin="moco_v2",
        signature=(r"encoder_q\.(fc|classifier)\.\d+\.weight",),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.(?=\d)", BACKBONE: r"encoder_q\.", **MOCO},
        heads=MOCO_HEADS[:1],
    ),
    Layout(
        origin="moco_v1",
        signature=(r"encoder_q\.(fc|classifier)\.weight", r"(queue$|encoder_k\.)"),
        roles={HEAD: r"encoder_q\.(fc|classifier)\.", BACKBONE: r"encoder_q\.", **MOCO},
        heads=MOCO_HEADS[1:],
    ),
    Layout(
        origin="moco",  # its head was taken off
        signature=(r"encoder_q\.",),
        roles={CLASSIFIER: rf"encoder_q\.(?={SINGLE})", BACKBONE: r"encoder_q\.", **MOCO},
    ),
    Layout(
        origin="moco_v3",
        signature=(r"base_encoder\.",),
        roles={
            HEAD: r"base_encoder\.(fc|head)\.(?=\d)",
            BACKBONE: r"base_encoder\.",
            MOMENTUM: r"momentum_encoder\.",
            "predictor": r"predictor\.",
        },
        heads=(
            "matrix batch_norm relu matrix batch_norm",
            "matrix batch_norm relu matrix batch_norm relu matrix batch_norm",
        ),
        attention_heads={384: 12},  # its ViT-S; timm's has 6
    ),
    Layout(
        origin="ibot",
        signature=(r"teacher\.backbone\.", r"teacher\.head\.(last_layer2|mlp2)\."),
        roles={
            BACKBONE: r"teacher\.backbone\.",
            "patches' head": r"teacher\.head\.(last_layer2|mlp2)\.",
            HEAD: r"teacher\.head\.",
            "student": r"student\.",
        },
        heads=DINO_HEADS,
        activation="gelu",
    ),
    Layout(
        origin="dinov2",
        signature=(r"teacher\.backbone\.", r"teacher\.(dino|ibot)_head\."),
        roles={
            BACKBONE: r"teacher\.backbone\.",
            HEAD: r"teacher\.dino_head\.",
            "patches' head": r"teacher\.ibot_head\.",
            "student": r"student\.",
        },
        heads=DINO_HEADS,
        activation="gelu",
        renames=DINOV2,
    ),
    Layout(
        origin="dino",
        signature=(r"teacher\.backbone\.",),
        roles={BACKBONE: r"teacher\.backbone\.", HEAD: r"teacher\.head\.", "student": r"student\."},
        heads=DINO_HEADS,
        activation="gelu",
    ),
    Layout(
        origin="seed",
        signature=(r"student\.", r"teacher\.", r"queue$"),
        roles={
            HEAD: r"student\.fc\.",
            BACKBONE: r"student\.",
            "teacher": r"teacher\.",
            "queue": r"queue",
        },
        heads=MOCO_HEADS,
    ),
    Layout(
        origin="esvit",
        signature=(r"teacher\.(patch_embed|layers|stages|blocks)\.", r"teacher\.head\.(mlp|last_layer)\."),
        roles={
            HEAD: r"teacher\.head\.(?=mlp|last_layer)",
            "regions' head": r"teacher\.head_dense\.",
            BACKBONE: r"teacher\.",
            "student": r"student\.",
        },
        heads=DINO_HEADS,
        activation="gelu",
    ),
    Layout(
        origin="a teacher and its student",
        signature=(r"student\.", r"teacher\."),
        absent=(r"teacher\.backbone\.",),
        containers=PAIR[:1],
        roles={
            CLASSIFIER: rf"teacher\.(?={SINGLE}|head\.(weight|bias)$)",
            BACKBONE: r"teacher\.",
            "student": r"student\.",
        },
        remark="the teacher in it is read, and not its student",
        normalisation=None,
    ),
    Layout(
        origin="a student and its teacher",  # mdistiller's, and other scripts of distillation
        signature=(r"(student|model_s)\.", r"(teacher|model_t)\."),
        absent=(r"teacher\.backbone\.",),
        roles={
            CLASSIFIER: rf"(student|model_s)\.(?={SINGLE}|head\.(weight|bias)$)",
            BACKBONE: r"(student|model_s)\.",
            "teacher": r"(teacher|model_t)\.",
        },
        remark="the student in it is read, and not its teacher",
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="i-jepa or msn",
        signature=(r"target_encoder\.",),
        roles={
            "head that is not read": r"target_encoder\.fc\.",
            BACKBONE: r"target_encoder\.",
            "student": r"(context_)?encoder\.",
            "predictor": r"predictor\.",
            "prototypes": r"prototypes",
        },
        renames=DINOV2,
    ),
    Layout(
        origin="open_clip or clip",
        signature=(r"visual\.", r"(transformer|text|token_embedding|text_model)\."),
        roles={
            "projection of images": r"visual\.(proj$|head\.)",
            BACKBONE: r"visual\.(trunk\.)?",
            "text": r"(transformer|text|token_embedding|text_projection|ln_final|positional_embedding)",
            "scale": r"logit_(scale|bias)$",
        },
        normalisation=None,  # OpenAI's and its kin's, as timm says of its CLIP networks
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
    Layout(
        origin="solo-learn",
        signature=(r"(backbone|encoder)\.", r"projector\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"projector\.", **SOLO},
        attention_heads=TWELVE,
        heads_if_fixed=True,
        small_stem_padding=2,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="solo-learn dino",
        signature=(r"(backbone|encoder)\.", r"head\.mlp\.", r"head\.last_layer\."),
        roles={BACKBONE: r"(backbone|encoder)\.", HEAD: r"head\.", **SOLO},
        heads=DINO_HEADS,
        activation="gelu",
        attention_heads=TWELVE,
        heads_if_fixed=True,
        small_stem_padding=2,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="solo-learn, no head",
        signature=(r"(backbone|encoder)\.", r"(classifier\.weight|momentum_)"),
        roles={BACKBONE: r"(backbone|encoder)\.", **SOLO},
        attention_heads=TWELVE,
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
        activation="gelu",
        renames=RESNET_IN_A_ROW,
    ),
    Layout(
        origin="a backbone with a classifier",
        signature=(r"backbone\.", SINGLE),
        roles={CLASSIFIER: rf"(?={SINGLE})", BACKBONE: r"backbone\."},
        renames=(*RESNET_IN_A_ROW, *SHORTCUTS),
        normalisation=None,
    ),
    Layout(
        origin=UNKNOWN,
        signature=(r"backbone\.",),
        roles={BACKBONE: r"backbone\."},
        renames=(*RESNET_IN_A_ROW, *SHORTCUTS),
    ),
    Layout(
        origin="supcontrast",
        signature=(r"encoder\.", r"head\.(\d+\.)?weight$"),
        containers=("model",),
        beside=("opt",),
        roles={BACKBONE: r"encoder\.", HEAD: r"head\."},
        renames=SHORTCUTS,
        heads=MOCO_HEADS,
        small_stem_padding=1,
        small_stem_normalisation=_CIFAR,
    ),
    Layout(
        origin="simsiam",
        signature=(r"encoder\.fc\.0\.", r"predictor\.0\."),
        roles={HEAD: r"encoder\.fc\.(?=\d)", BACKBONE: r"encoder\.", "predictor": r"predictor\."},
        heads=(
            "matrix batch_norm relu matrix batch_norm relu linear batch_norm",
            "matrix batch_norm relu matrix batch_norm relu matrix batch_norm",
        ),
    ),
    Layout(
        origin="an encoder with a classifier",  # SupContrast's main_ce.py, and others
        signature=(r"encoder\.", SINGLE),
        absent=(r"class_token$",),
        roles={CLASSIFIER: rf"(?={SINGLE})", BACKBONE: r"encoder\."},
        renames=SHORTCUTS,
        normalisation=None,
    ),
    Layout(
        origin="torchvision vit",
        signature=(r"class_token$", r"encoder\.layers\.encoder_layer_0\."),
        roles={CLASSIFIER: r"heads\.head\.", BACKBONE: ""},
        renames=TORCHVISION_VIT,
    ),
    Layout(
        origin="moco_v2 without its prefix",  # the query encoder, saved by itself
        signature=(r"(fc|classifier)\.0\.weight$", r"(fc|classifier)\.2\.weight$"),
        absent=(r"features\.", r"(fc|classifier)\.1\."),
        roles={HEAD: r"(fc|classifier)\.(?=\d)", BACKBONE: ""},
        heads=MOCO_HEADS[:1],
        wide_head=True,
        if_classifier="torchvision or timm",
    ),
    Layout(
        origin="compress",
        signature=("",),
        containers=("model",),
        beside=("opt", "epoch"),
        arguments=("student_arch", "teacher_arch"),
        roles={HEAD: r"fc\.(?=(weight|bias)$)", BACKBONE: ""},
        heads=("linear",),
    ),
    Layout(
        origin="mae",
        signature=(*VIT, r"decoder_(embed|blocks)\."),
        roles={CLASSIFIER: CLASSIFYING, BACKBONE: ""},
    ),
    Layout(
        origin="dinov2, a backbone alone",
        signature=(r"cls_token$", r"mask_token$", r"blocks\.(\d+\.)?0\.ls1\.gamma"),
        roles={BACKBONE: ""},
        renames=DINOV2,
    ),
    Layout(
        origin="ibot, a backbone alone",
        signature=(*VIT, r"masked_embed$"),
        roles={CLASSIFIER: CLASSIFYING, BACKBONE: ""},
    ),
    Layout(
        origin="deit, distilled",
        signature=(*VIT, r"dist_token$"),
        roles={CLASSIFIER: CLASSIFYING, BACKBONE: ""},
    ),
    Layout(
        origin="deit",
        signature=(*VIT, r"head\.weight$"),
        containers=("model",),
        roles={CLASSIFIER: CLASSIFYING, BACKBONE: ""},
        normalisation=None,  # others keep a timm ViT under `model`, too
    ),
    Layout(
        origin="dino or timm, a backbone alone",
        signature=VIT,
        absent=(r"head",),
        containers=(None,),
        roles={BACKBONE: ""},
        normalisation=None,
    ),
    Layout(
        origin="torchvision",
        signature=(r"features\.\d+\.",),
        roles={CLASSIFIER: CLASSIFYING, BACKBONE: ""},
    ),
    Layout(
        # Both libraries name the parts of a standard ResNet alike.
        origin="torchvision or timm",
        signature=(r"conv1\.weight", r"layer1\.0\.conv1\."),
        # Several layers may classify or project, and nothing tells which.
        roles={CLASSIFIER: CLASSIFYING, "layers of a head": r"(?=(fc|head)\.\d+\.)", BACKBONE: ""},
        renames=SHORTCUTS,
        normalisation=None,
    ),
    Layout(
        origin="timm",
        signature=(r"",),
        roles={CLASSIFIER: CLASSIFYING, "layers of a head": r"(?=fc\.\d+\.)", BACKBONE: ""},
        normalisation=None,
    ),
)
