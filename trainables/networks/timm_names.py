"""Weights under the names of an architecture's authors, renamed to timm's by timm's own functions.

timm has, beside many of its models, a function that renames the authors' weights (EVA, CLIP, Swin, ConvNeXt
and others). These functions also resize weights that do not fit, which would change the network without a
message. Here only position embeddings may be resized, and only for a network that was asked for images of
another size.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Weights that those functions resize or recompute: embeddings of positions, and others.
_POSITIONS = ("pos_embed", "rel_pos", "relative_position", "posemb")
_RESIZED = (*_POSITIONS, "patch_embed", "attn_biases", "rope")


def timms_names(
    model: nn.Module, weights: Mapping[str, Tensor], resample: bool = False
) -> dict[str, Tensor] | None:
    """`weights` under the names of timm's `model`; None: timm cannot rename them, or would resize some.

    With `resample` position embeddings may be resampled to the model's grid.
    """
    convert: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    silent = logging.getLogger("timm")
    level = silent.level
    silent.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # it prints
            named = dict(convert(dict(weights), model))
    except Exception:  # it expects the authors' files, and this is another
        return None
    finally:
        silent.setLevel(level)
    if not all(isinstance(value, Tensor) for value in named.values()):
        return None
    checked = tuple(part for part in _RESIZED if not resample or part not in _POSITIONS)
    if any(_resized(name, value, weights, checked) for name, value in named.items()):
        return None
    return None if _without_bias(named, weights) else named


def _without_bias(named: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether biases of queries or values that are not 0 were left out.

    timm has DINOv3 with these biases and without. For the latter its function leaves any biases out.
    """
    biases = {name: value for name, value in weights.items() if name.endswith("attn.qkv.bias")}
    kept = any(name.endswith(("attn.qkv.bias", "attn.q_bias", "attn.q_proj.bias")) for name in named)
    return not kept and any(bool(part.any()) for b in biases.values() for part in b.chunk(3)[::2])


def _resized(name: str, value: Tensor, weights: Mapping[str, Tensor], parts: tuple[str, ...]) -> bool:
    """Whether `name` has one of `parts`, and the numbers of `value` are not in the file in this order."""
    if not any(part in name for part in parts):
        return False
    flat = value.flatten()
    return not any(
        flat.numel() <= given.numel()
        and (torch.equal(flat, given.flatten()) or torch.equal(flat, given.flatten()[-flat.numel() :]))
        for given in weights.values()
    )
