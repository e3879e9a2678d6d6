"""Networks whose keys have no prefix: names of their own, or those of timm and torchvision."""

from __future__ import annotations

from trainables.teachers.pretrained.layouts.base import (
    BACKBONE,
    CLASSIFIER,
    DINOV2,
    HEAD,
    MOCO_HEADS,
    SHORTCUTS,
    Layout,
)

ORDER = 50

# Classifiers of timm's and torchvision's families. `head.norm` (ConvNeXt) is the backbone's, so no `head.*`.
CLASSIFYING = (
    r"(?=(fc|last_linear|linear|classifier(\.\d+)?|head(\.fc|\.l|\.linear)?|head_dist)\.(weight|bias)$)"
)
PLAIN = {CLASSIFIER: CLASSIFYING, BACKBONE: ""}  # roles
VIT = (r"cls_token$", r"blocks\.0\.")
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

LAYOUTS = (
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
    Layout(origin="mae", signature=(*VIT, r"decoder_(embed|blocks)\."), roles=PLAIN),
    Layout(
        origin="dinov3, a backbone alone",
        signature=(r"cls_token$", r"storage_tokens$", r"blocks\.0\.ls1\.gamma"),
        roles={BACKBONE: ""},
        normalisation=None,  # of images from satellites another one than of the web's
    ),
    Layout(
        origin="dinov2, a backbone alone",
        signature=(r"cls_token$", r"mask_token$", r"blocks\.(\d+\.)?0\.ls1\.gamma"),
        roles={BACKBONE: ""},
        renames=DINOV2,
    ),
    Layout(origin="ibot, a backbone alone", signature=(*VIT, r"masked_embed$"), roles=PLAIN),
    Layout(origin="deit, distilled", signature=(*VIT, r"dist_token$"), roles=PLAIN),
    Layout(
        origin="deit",
        signature=(*VIT, r"head\.weight$"),
        containers=("model",),
        roles=PLAIN,
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
    Layout(origin="torchvision", signature=(r"features\.\d+\.",), roles=PLAIN),
    Layout(
        # Both libraries use the same names for the parts of a standard ResNet.
        origin="torchvision or timm",
        signature=(r"conv1\.weight", r"layer1\.0\.conv1\."),
        # Several layers may be a classifier or a projection head; the keys do not tell which.
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
