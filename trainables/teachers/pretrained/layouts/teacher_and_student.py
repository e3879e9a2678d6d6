"""Files with a teacher and a student: DINO and methods built on it, distillation, I-JEPA."""

from __future__ import annotations

from trainables.teachers.pretrained.layouts.base import (
    BACKBONE,
    CLASSIFIER,
    DINO_HEADS,
    DINOV2,
    HEAD,
    MOCO_HEADS,
    PAIR,
    SINGLE,
    SMALL_STEM,
    Layout,
)

ORDER = 20

LAYOUTS = (
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
        renames=DINOV2,
    ),
    Layout(
        origin="dino",
        signature=(r"teacher\.backbone\.",),
        roles={BACKBONE: r"teacher\.backbone\.", HEAD: r"teacher\.head\.", "student": r"student\."},
        heads=DINO_HEADS,
    ),
    Layout(
        origin="seed",
        signature=(r"student\.", r"teacher\.", r"queue$"),
        roles={HEAD: r"student\.fc\.", BACKBONE: r"student\.", "teacher": r"teacher\.", "queue": r"queue"},
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
        origin="a student and its teacher",  # mdistiller and other scripts for distillation
        signature=(r"(student|model_s)\.", r"(teacher|model_t)\."),
        absent=(r"teacher\.backbone\.",),
        roles={
            CLASSIFIER: rf"(student|model_s)\.(?={SINGLE}|head\.(weight|bias)$)",
            BACKBONE: r"(student|model_s)\.",
            "teacher": r"(teacher|model_t)\.",
        },
        remark="the student in it is read, and not its teacher",
        small_stem_normalisation=SMALL_STEM,
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
)
