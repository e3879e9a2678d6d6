"""Vision transformers as the library `transformers` saves them: CLIP, SigLIP, DINOv2, DINOv3.

Queries, keys and values are three layers there, and one in timm (`pretrained.timm_shapes` joins them). The
names of DINOv3 become Meta's, which timm's own function reads.
"""

from __future__ import annotations

from trainables.teachers.pretrained.layouts.base import BACKBONE, MASKED, Layout

ORDER = 25

_ATTENTION = (
    (r"\.(self_attn|attention)\.(q|k|v)_proj\.", r".attn.\2."),
    (r"\.(self_attn|attention)\.(out|o)_proj\.", ".attn.proj."),
)
_TOWER = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_(weight|bias)$", r"attn_pool.in_proj.\1"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
    *_ATTENTION,
)
_DINO = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^((encoder|model)\.)?layer\.", "blocks."),
    (r"\.attention\.attention\.(q)uery\.", r".attn.\1."),
    (r"\.attention\.attention\.(k)ey\.", r".attn.\1."),
    (r"\.attention\.attention\.(v)alue\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
    *_ATTENTION,
)

_BESIDE = {
    "projection of images": r"visual_projection\.",
    "text": r"(text_model|text_projection)\.",
    "scale": r"logit_(scale|bias)$",
}

LAYOUTS = (
    Layout(
        origin="transformers siglip",
        signature=(r"vision_model\.embeddings\.patch_embedding\.", r"vision_model\.head\.probe$"),
        roles={BACKBONE: r"vision_model\.", **_BESIDE},
        renames=_TOWER,
        normalisation=None,  # the configuration beside the file has it, or timm's of these networks
        remark="SigLIP was trained with GELU by tanh. Many of timm's networks have the exact GELU and "
        "differ in the fourth digit; `options: {act_layer: gelu_tanh}` computes what transformers does",
    ),
    Layout(
        origin="transformers clip",
        signature=(r"vision_model\.embeddings\.patch_embedding\.", r"vision_model\.encoder\.layers\.0\."),
        roles={BACKBONE: r"vision_model\.", **_BESIDE},
        renames=_TOWER,
        normalisation=None,
    ),
    Layout(
        origin="transformers dinov3",
        signature=(r"embeddings\.register_tokens$", r"(model\.)?layer\.0\.layer_scale1\.lambda1$"),
        roles={MASKED: r"embeddings\.mask_token$", BACKBONE: ""},
        renames=(
            (r"^embeddings\.register_tokens$", "storage_tokens"),
            (r"\.mlp\.up_proj\.", ".mlp.fc1."),
            (r"\.mlp\.down_proj\.", ".mlp.fc2."),
            (r"\.mlp\.gate_proj\.", ".mlp.w1."),
            *_DINO,
        ),
        normalisation=None,
    ),
    Layout(
        origin="transformers dinov2",
        signature=(r"embeddings\.cls_token$", r"encoder\.layer\.0\.layer_scale1\.lambda1$"),
        roles={MASKED: r"embeddings\.mask_token$", BACKBONE: ""},
        renames=(
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"\.mlp\.weights_in\.", ".mlp.fc1."),
            (r"\.mlp\.weights_out\.", ".mlp.fc2."),
            *_DINO,
        ),
    ),
)
