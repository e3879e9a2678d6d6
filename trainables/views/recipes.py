"""What views are made by: recipes, and the operations that a trial changes in them.

recipe_of(ViewSpec(recipe="solo_learn"), view=1)         # of the second view
recipe_of(ViewSpec(recipe="moco_v2", second={"solarise": 0.2}), view=1)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.core.errors import UserError
from trainables.spec.trial import ViewSpec


@dataclass(frozen=True)
class Recipe:
    """What a recipe does at strength 1. A range of 0 leaves the operation out.

    Strength s scales ranges: an area share lost, an angle, a deviation from 1, a standard deviation. What has
    no range keeps its probability, but for grayscale, whose probability is scaled.
    """

    crop: float = 0.0  # share of the area a random resized crop may lose; sides 3/4 .. 4/3
    pad: float = 0.0  # black border, as a share of the side, of which a crop of the image's size is taken
    flip: float = 0.0  # probability
    jitter: tuple[float, ...] = (0, 0, 0, 0)  # brightness, contrast, saturation; hue in turns
    jitter_probability: float = 0.8
    grayscale: float = 0.0  # probability
    blur: float = 0.0  # probability; standard deviation 0.1 .. 2 pixels
    solarise: float = 0.0  # probability; values from 128 of 255 up are inverted
    rotate: float = 0.0  # degrees
    scale: float = 0.0  # deviation of the size from 1
    shear: float = 0.0  # degrees, along each axis
    shift: float = 0.0  # share of the side, along each axis
    gain: float = 0.0  # deviation of the brightness from 1
    noise: float = 0.0  # largest standard deviation, images being 0..1
    erase: float = 0.0  # largest side of a black rectangle, as a share of the side; probability 1/2
    second: Mapping[str, Any] = field(default_factory=dict)  # what differs in the second view

    @property
    def warps(self) -> bool:
        """Whether it has an affine map: rotate, scale, shear or shift."""
        return any((self.rotate, self.scale, self.shear, self.shift))

    @property
    def augments(self) -> bool:
        """Does it change an image at all?"""
        return any(any(value) if name == "jitter" else value for name, value in self.operations.items())

    @property
    def operations(self) -> dict[str, Any]:
        """Operation -> its number, without the probability of a jitter, which alone does nothing."""
        return {name: getattr(self, name) for name in LARGEST if name != "jitter_probability"}


# The largest number that an operation can take; the smallest is 0.
LARGEST: Mapping[str, float | tuple[float, ...]] = {
    "crop": 0.95,
    "pad": 1.0,
    "flip": 1.0,
    "jitter": (2.0, 2.0, 2.0, 0.5),
    "jitter_probability": 1.0,
    "grayscale": 1.0,
    "blur": 1.0,
    "solarise": 1.0,
    "rotate": 180.0,
    "scale": 0.9,
    "shear": 45.0,
    "shift": 1.0,
    "gain": 1.0,
    "noise": 1.0,
    "erase": 1.0,
}

RECIPES = {
    # MoCo-v2: resized crop (0.2, 1), jitter (.4, .4, .4, .1) p .8, grayscale p .2, blur p .5, flip.
    "moco_v2": Recipe(
        crop=0.8,
        flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        grayscale=0.2,
        blur=0.5,
    ),
    # SSL-Small: moco_v2 with jitter (.8, .8, .8, .4) and grayscale p .5.
    "ssl_small": Recipe(
        crop=0.8,
        flip=0.5,
        jitter=(0.8, 0.8, 0.8, 0.4),
        grayscale=0.5,
        blur=0.5,
    ),
    # `vturrisi/solo-learn`, `mengjian0502/solo-learn-sparse`; both resize by cubic interpolation.
    # Their asymmetric pair (BYOL's): resized crop (0.08, 1), jitter (.4, .4, .2, .1) p .8, grayscale p .2,
    # flip; blur p 1 in the first view; blur p .1, solarise p .2 in the second.
    "solo_learn": Recipe(
        crop=0.92,
        flip=0.5,
        jitter=(0.4, 0.4, 0.2, 0.1),
        grayscale=0.2,
        blur=1.0,
        second={"blur": 0.1, "solarise": 0.2},
    ),
    # Resized crop (0.08, 1) and flip, as in supervised training and CompRess.
    "imagenet": Recipe(crop=0.92, flip=0.5),
    # Resized crop (0.2, 1) and flip.
    "light": Recipe(crop=0.8, flip=0.5),
    # Crop from the image with a black border of 1/8 (4 of 32 pixels), and flip.
    "cifar": Recipe(pad=0.125, flip=0.5),
    # Rotation within 20 degrees, scale, shear, shift, gain, noise, erasing; no flip, no colour.
    "digits": Recipe(
        rotate=20.0,
        scale=0.2,
        shear=10.0,
        shift=0.1,
        gain=0.3,
        noise=0.1,
        erase=0.3,
    ),
    # The centre of the image.
    "none": Recipe(),
}


def recipe_of(spec: ViewSpec, view: int) -> Recipe:
    """The recipe of view number `view`, with the trial's own numbers; `UserError` for what cannot be.

    The second view alone differs from the others: first by the recipe's own `second`, then by the trial's.
    """
    if spec.recipe not in RECIPES:
        raise UserError("views.recipe", "no such recipe", value=spec.recipe, choices=RECIPES)
    recipe = RECIPES[spec.recipe]
    changes = dict(recipe.second) if view == 1 else {}
    changes |= _checked(spec.operations, "views.operations")
    second = _checked(spec.second, "views.second")
    if view == 1:
        changes |= second
    made = dataclasses.replace(recipe, **changes)
    geometry = [name for name in ("crop", "pad") if getattr(made, name)] + ["rotate"] * made.warps
    if len(geometry) > 1:
        where = "views.second" if set(second) & {*geometry, "scale", "shear", "shift"} else "views.operations"
        raise UserError(
            where,
            "takes two kinds of crop for one view: crop, pad, and rotate with scale, shear and shift exclude "
            "each other",
            value=geometry,
            expected=f"0 for one of them, such as `{geometry[0]}: 0`",
        )
    return made


def check_views(spec: ViewSpec) -> Recipe:
    """The recipe of the first view; `UserError` for a recipe, an operation or a number that cannot be."""
    recipe_of(spec, 1)
    return recipe_of(spec, 0)


def augments(spec: ViewSpec) -> bool:
    """Do these views change an image?"""
    return spec.strength > 0 and any(recipe_of(spec, view).augments for view in (0, 1))


def _checked(operations: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name, value in operations.items():
        if name not in LARGEST:
            raise UserError(f"{where}.{name}", "no such operation", value=name, choices=LARGEST)
        largest = LARGEST[name]
        if isinstance(largest, tuple):
            fits = isinstance(value, tuple) and len(value) == len(largest)
            fits = fits and all(0 <= v <= most for v, most in zip(value, largest, strict=True))
            expected = "four numbers, of brightness, contrast and saturation up to 2, of hue up to 0.5"
        else:
            fits = not isinstance(value, tuple) and 0 <= value <= largest
            expected = f"a number from 0 to {largest:g}"
        if not fits:
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(f"{where}.{name}", "cannot be", value=shown, expected=expected)
    return dict(operations)
