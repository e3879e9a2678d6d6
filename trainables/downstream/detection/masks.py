"""Masks in COCO's notations, by pycocotools: polygons and run lengths to pixels, pixels to run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.core.errors import UserError, first_line

Mask = npt.NDArray[np.uint8]


def check_pycocotools() -> None:
    """Raise `UserError` where pycocotools cannot be imported, which reads masks and scores boxes."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        problem = f"needs the package pycocotools, which cannot be imported: {first_line(error)}"
        raise UserError(
            "task", problem, value="detection", expected="`pip install raykd[detection]`"
        ) from None


def encoded(mask: Mask) -> dict[str, Any]:
    """The run lengths of a mask (H, W) of 0 and 1, as COCO's tools read them."""
    from pycocotools import mask as tools

    found: dict[str, Any] = tools.encode(np.asfortranarray(mask))
    return found


def run_lengths(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """COCO's compressed run lengths of polygons, or of run lengths. Raises ValueError for other content."""
    from pycocotools import mask as tools

    try:
        if isinstance(segmentation, list):
            found: dict[str, Any] = tools.merge(tools.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            if sum(segmentation["counts"]) != width * height:
                raise ValueError(f"its run lengths are not those of {width} x {height} pixels")
            found = tools.frPyObjects(segmentation, height, width)
        else:
            found = segmentation
    except ValueError:
        raise
    except Exception as error:  # what C code says of content that it does not know
        raise ValueError(f"its segmentation cannot be read: {first_line(error)}") from None
    if list(found["size"]) != [height, width]:
        raise ValueError(f"its mask has {found['size']} pixels and not those of the image")
    return found


def decoded(segmentation: Any, width: int, height: int) -> Mask:
    """The mask (H, W) of 0 and 1. Raises ValueError for content that is no segmentation of such an image."""
    from pycocotools import mask as tools

    found: Mask = tools.decode(run_lengths(segmentation, width, height))
    return found
