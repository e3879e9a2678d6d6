"""How the images of a large data set are kept where the file of a new sweep does not say it.

This is written into the sweep's recorded settings when the sweep starts. So a sweep that an older raykd
recorded keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykd.spec.sections import SHORTHAND
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build, spelled_out
from trainables.spec.trial import DataSpec

MANY_IMAGES = 100_000
MANY_BYTES = 32 * 10**9  # smaller stores of raw pixels fit on most disks, and into many machines' memory


def with_kept_images(raw: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`raw` with `data.keep: jpeg` for a data set of 100,000 images or more whose pixels take over 32 GB.

    `raw` is returned as it is where it says how images are kept, or where the data set cannot be looked at.
    """
    from trainables.data.data_sets import check_data, published_sizes

    try:
        spelled = spelled_out(as_mapping(raw, where), SHORTHAND)
        data = as_mapping(spelled.get("data"), "data")
        named = [*as_mapping(spelled.get("axes"), "axes"), *as_mapping(spelled.get("fixed"), "fixed")]
        if "keep" in data or any(name.startswith("data.") for name in named):
            return dict(raw)
        jpeg_only = ("short_side", "decoder")
        spec = build(DataSpec, {key: value for key, value in data.items() if key not in jpeg_only}, "data")
        with published_sizes():
            facts = check_data(spec)
    except UserError:  # it is said where the sweep is built and its trials are checked
        return dict(raw)
    images = facts.train_images + facts.validation_images + facts.test_images
    side = spec.image_size + spec.margin
    if images < MANY_IMAGES or 3 * side**2 * images < MANY_BYTES:
        return dict(raw)
    return {**spelled, "data": {**data, "keep": "jpeg", "short_side": data.get("short_side", max(256, side))}}
