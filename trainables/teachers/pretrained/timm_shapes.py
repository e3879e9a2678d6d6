"""Weights under timm's names in timm's shapes, where only the layout in memory differs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PART = re.compile(r"(.*\.attn\.)(q|k|v)\.(weight|bias)")
_POOL = "attn_pool.in_proj."


def in_timms_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors`, with queries, keys and values joined, those of attention pooling parted, and batch axes.

    `*.attn.{q,k,v}` become `*.attn.qkv`, with a bias of 0 for keys that have none, and `attn_pool.in_proj`
    becomes `attn_pool.{q,kv}`. A class token (D,) becomes (1, 1, D), positions (N, D) become (1, N, D).
    """
    shaped: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _PART.fullmatch(name):
            parts.setdefault(f"{match[1]}qkv.{match[3]}", {})[match[2]] = tensor
        elif name.startswith(_POOL):
            kind, width = name.removeprefix(_POOL), len(tensor) // 3
            shaped[f"attn_pool.q.{kind}"], shaped[f"attn_pool.kv.{kind}"] = tensor[:width], tensor[width:]
        elif name in ("cls_token", "pos_embed"):
            shaped[name] = tensor.reshape(1, -1, tensor.shape[-1])
        else:
            shaped[name] = tensor
    for name, three in parts.items():
        if {"q", "v"} <= three.keys():
            keys = three.get("k", torch.zeros_like(three["q"]))
            shaped[name] = torch.cat([three["q"], keys, three["v"]])
    return shaped
