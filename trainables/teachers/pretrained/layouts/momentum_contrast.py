"""Files of raykd, of MoCo and of projects built on MoCo's code."""

from __future__ import annotations

from trainables.teachers.pretrained.layouts.base import (
    BACKBONE,
    CLASSIFIER,
    HEAD,
    MOCO_HEADS,
    MOMENTUM,
    SINGLE,
    Layout,
)

ORDER = 10

MOCO = {MOMENTUM: r"encoder_k\.", "queue": r"queue"}
TAUGHT = {"teacher": r"teacher_encoder_q\.", "teacher's momentum encoder": r"teacher_encoder_k\.", **MOCO}

LAYOUTS = (
    Layout(
        origin="raykd, a student",  # exported, or in a trial's folder
        signature=("",),
        roles={BACKBONE: ""},
        metadata={"raykd": "student"},
    ),
    Layout(
        origin="raykd",
        signature=(r"backbone\.",),
        roles={BACKBONE: r"backbone\.", HEAD: r"head\.", CLASSIFIER: r"classifier\."},
        metadata={"format": "raykd"},  # the metadata also describe the head's layers
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
        origin="moco",  # without its head
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
)
