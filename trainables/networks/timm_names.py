"""Files in the names of an architecture's first authors: read by timm's own table of them.

timm holds, beside many of its models, a function that gives the authors' weights timm's names (EVA, CLIP,
Swin, ConvNeXt and others). Only names may change: these functions also resize what does not fit, which would
be another network in silence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Weights that those functions resize or compute anew.
_RESIZED = ("pos_embed", "rel_pos", "relative_position", "patch_embed", "attn_biases", "posemb", "rope")


def timms_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """`weights` under the names of timm's `model`; None where timm knows no others, or would resize them."""
    convert: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    silent = logging.getLogger("timm")
    level = silent.level
    silent.setLevel(logging.ERROR)
    try:
        with torch.no_grad():
            named = dict(convert(dict(weights), model))
    except Exception:  # it expects the authors' files, and this is another
        return None
    finally:
        silent.setLevel(level)
    if not all(isinstance(value, Tensor) for value in named.values()):
        return None
    return None if any(_resized(name, value, weights) for name, value in named.items()) else named


def _resized(name: str, value: Tensor, weights: Mapping[str, Tensor]) -> bool:
    """Are the numbers of `value` not in the file, in this order?"""
    if not any(part in name for part in _RESIZED):
        return False
    flat = value.flatten()
    return not any(
        flat.numel() <= given.numel()
        and (torch.equal(flat, given.flatten()) or torch.equal(flat, given.flatten()[-flat.numel() :]))
        for given in weights.values()
    )
