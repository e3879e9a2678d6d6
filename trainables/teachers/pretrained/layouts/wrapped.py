"""Files with a backbone under one prefix, `backbone.` or `encoder.`, and few other weights."""

from __future__ import annotations

from trainables.teachers.pretrained.layouts.base import (
    BACKBONE,
    CLASSIFIER,
    HEAD,
    MOCO_HEADS,
    RESNET_IN_A_ROW,
    SHORTCUTS,
    SINGLE,
    SMALL_STEM,
    UNKNOWN,
    Layout,
)

ORDER = 40

LAYOUTS = (
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
        small_stem_normalisation=SMALL_STEM,
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
)
