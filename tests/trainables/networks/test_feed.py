"""What a network is given of views: its size, its range of values, its order of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trainables.networks.feed import Feed
from trainables.spec.inputs import USUAL, Inputs
from trainables.spec.normalisation import IMAGENET, Normalisation

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
PIXELS = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
VIEWS = (PIXELS / 255 - MEAN) / STD


def test_a_caffe_network_gets_bgr_from_0_to_255() -> None:
    """Its mean, (103.939, 116.779, 123.68) of blue, green and red, is written in the order of the picture."""
    mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    torch.manual_seed(0)
    caffe = nn.Conv2d(3, 4, 3)
    own = PIXELS[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    feed = Feed(Inputs(Normalisation(mean, (1 / 255,) * 3), "bgr"))
    torch.testing.assert_close(feed(VIEWS), own, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(caffe(feed(VIEWS)), caffe(own), rtol=1e-4, atol=1e-2)
    wrong = Feed(Inputs(Normalisation(mean, (1 / 255,) * 3)))
    assert (caffe(wrong(VIEWS)) - caffe(own)).abs().mean() > 1
    assert Normalisation(mean, (1 / 255,) * 3).range() == pytest.approx((-123.68, 255 - 103.939))


def test_the_usual_input_is_the_view_itself() -> None:
    assert Feed(USUAL)(VIEWS) is VIEWS and not list(Feed(USUAL).buffers())
    assert Feed(Inputs(image_size=16))(VIEWS) is VIEWS, "at its own size nothing is resized"
    assert not Feed(Inputs(image_size=8)).state_dict()


@pytest.mark.parametrize("interpolation, pillow", [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("size", [10, 24])
def test_another_size_is_pillow_s(interpolation: Any, pillow: Any, size: int) -> None:
    calm = 80 + PIXELS.floor_divide(3)  # Pillow clamps after each axis: none leaves 0..255
    feed = Feed(Inputs(interpolation=interpolation, image_size=size))
    got = feed((calm / 255 - MEAN) / STD) * STD + MEAN

    def resized(pixels: Tensor) -> Tensor:
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy().astype(np.uint8))
        return torch.from_numpy(np.array(image.resize((size, size), pillow))).permute(2, 0, 1) / 255

    want = torch.stack([resized(one) for one in calm])
    torch.testing.assert_close(got, want, rtol=0, atol=1.6 / 255)  # Pillow rounds after each axis
    loud = feed((PIXELS.gt(127).float() - MEAN) / STD) * STD + MEAN
    assert loud.min() > -1e-6 and loud.max() < 1 + 1e-6, "cubic resizing overshoots, a pixel does not"
