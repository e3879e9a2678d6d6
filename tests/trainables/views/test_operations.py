"""Each operation agrees with torchvision's for the same parameters, within a stated tolerance.

Images are in 0..1, tolerances absolute: 1/255 is 3.9e-3.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from trainables.views import operations as ops
from trainables.views.parameter_table import blur_weights, crops, edges, inverse_affine

COUNT = 24


@pytest.fixture
def images() -> Tensor:
    """(24, 3, 40, 40) uint8, some with flat and some with grey parts, where hues are undefined."""
    pixels = torch.randint(0, 256, (COUNT, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    pixels[:4] //= 128
    pixels[0] *= 255
    pixels[4:8, :, :20] = pixels[4:8, :1, :20]
    return pixels.to(torch.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def between(low: float, high: float) -> Tensor:
    return torch.from_numpy(rng().uniform(low, high, COUNT).astype(np.float32))


def assert_close(got: Tensor, want: list[Tensor], tolerance: float) -> None:
    torch.testing.assert_close(got, torch.stack(want), rtol=0, atol=tolerance)


def cropped(images: Tensor, boxes: np.ndarray, flip: np.ndarray, out: int, taps: int) -> Tensor:
    numbers = (torch.from_numpy(edges(boxes, flip, out)), torch.arange(out).double())
    given = (tensor.to(images.device) for tensor in (*numbers, torch.arange(taps).double()[:, None]))
    return ops.resized_crop(images, *ops.sampling(*given), (taps, taps))


@pytest.mark.parametrize("out", [40, 32, 17, 5, 64])
def test_resized_crop(images: Tensor, out: int) -> None:
    boxes = crops(COUNT, 40, 0.95, math.log(2), rng()).astype(np.int64)
    boxes[0] = (0, 0, 40, 40)
    boxes[1] = (39, 0, 1, 1)
    flip = rng().random(COUNT) < 0.5
    taps = ops.taps_of(int(boxes[:, 2:].max()), out)
    got = cropped(images, boxes, flip, out, taps)
    want = []  # by torchvision in float64: in float32 its own weights are off by up to 2e-6
    for image, box, mirrored in zip(images, boxes.tolist(), flip, strict=True):
        view = tv.resized_crop(image.double() / 255, *box, size=[out, out], antialias=True).float()
        want.append(tv.horizontal_flip(view) if mirrored else view)
    assert_close(got, want, 1e-6)
    # More taps than needed, as another sample of a batch may need, change nothing.
    assert torch.equal(got, cropped(images, boxes, flip, out, taps + 3))


@pytest.mark.parametrize("out", [40, 33])
def test_affine(images: Tensor, out: int) -> None:
    draw = rng().uniform(-1, 1, (6, COUNT))
    angle, shift, scale, shear = 40 * draw[0], 9 * draw[1:3], 1 + 0.5 * draw[3], 30 * draw[4:6]
    matrix = inverse_affine(np.radians(angle), list(shift), scale, list(np.radians(shear)))
    got = ops.affine(images / 255, torch.from_numpy(matrix), out)
    want = []
    for i, image in enumerate(images):
        moved = tv.affine(
            image / 255,
            angle=angle[i],
            translate=shift[:, i].tolist(),
            scale=scale[i],
            shear=shear[:, i].tolist(),
            interpolation=InterpolationMode.BILINEAR,
            fill=None,
        )
        want.append(moved)
    if out == 40:
        assert_close(got, want, 1e-4)
    else:
        # An odd cut moves the centre by half a pixel on both axes; on whole matrices that is a shift.
        half = matrix[:, :, :2] @ np.full(2, 0.5, np.float32)
        matrix[:, :, 2] += half
        inner = ops.affine(images / 255, torch.from_numpy(matrix), out)
        assert_close(inner, [view[:, 4:37, 4:37] for view in want], 1e-4)


def test_identities(images: Tensor) -> None:
    unit = images / 255
    identity = torch.eye(2, 3).expand(COUNT, 2, 3)
    assert torch.equal(ops.affine(unit, identity, 40), unit)
    whole, never = np.tile([0, 0, 40, 40], (COUNT, 1)), np.zeros(COUNT, np.bool_)
    assert torch.equal(cropped(images, whole, never, 40, 2), unit)
    assert torch.equal(cropped(images, whole, ~never, 40, 2), unit.flip(3))
    ones = torch.ones(COUNT)
    for op in (ops.brightness, ops.contrast, ops.saturation):
        assert torch.equal(op(unit.clone(), ones), unit)
    assert torch.equal(ops.blur(unit.clone(), torch.tensor([[1.0, 0.0, 0.0]]).expand(COUNT, 3)), unit)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_blends(images: Tensor, name: str) -> None:
    factor = between(0, 2)
    got = getattr(ops, name)(images / 255, factor)
    op = getattr(tv, f"adjust_{name}")
    want = [op(image / 255, f) for image, f in zip(images, factor.tolist(), strict=True)]
    assert_close(got, want, 2e-6)


def test_hue(images: Tensor) -> None:
    shift = between(-0.5, 0.5)
    shift[:3] = torch.tensor([-0.5, 0.0, 0.5])
    got = ops.hue(images / 255, shift)
    want = [tv.adjust_hue(image / 255, s) for image, s in zip(images, shift.tolist(), strict=True)]
    assert_close(got, want, 1e-5)


def test_grayscale(images: Tensor) -> None:
    want = [tv.rgb_to_grayscale(image / 255, num_output_channels=3) for image in images]
    assert_close(ops.grayscale(images / 255), want, 1e-6)


@pytest.mark.parametrize("size", [40, 224])
def test_blur(size: int) -> None:
    pictures = torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    sigma = np.array([0.1, 0.3, 0.8, 1.1, 1.7, 2.0], np.float32)
    got = ops.blur(pictures.clone(), torch.from_numpy(blur_weights(sigma, size)))
    kernel = 2 * max(1, size // 20) + 1
    assert kernel == {40: 5, 224: 23}[size]  # SimCLR's, a tenth of the side
    want = [
        tv.gaussian_blur(p, [kernel, kernel], [s, s]) for p, s in zip(pictures, sigma.tolist(), strict=True)
    ]
    assert_close(got, want, 3e-6)


def test_blur_weights_do_not_depend_on_the_batch() -> None:
    sigma = np.linspace(0.1, 2, 50, dtype=np.float32)
    together = blur_weights(sigma, 224)
    for row, s in enumerate(sigma):
        alone = blur_weights(np.array([s]), 224)[0]
        np.testing.assert_array_equal(together[row, : len(alone)], alone)
        assert not together[row, len(alone) :].any()
        assert math.isclose(alone[0] + 2 * math.fsum(alone[1:]), 1, abs_tol=1e-6)


def test_erase(images: Tensor) -> None:
    boxes = torch.from_numpy(np.random.default_rng(0).integers(0, 20, (COUNT, 4)))
    boxes[0] = torch.tensor([3, 3, 0, 5])
    black = torch.zeros(1)
    want = [tv.erase(image / 255, *box, v=black) for image, box in zip(images, boxes.tolist(), strict=True)]
    assert_close(ops.erase(images / 255, boxes), want, 0)


def test_normalise_and_centre(images: Tensor) -> None:
    centres = [tv.center_crop(image, [32, 32]) / 255 for image in images]
    want = [tv.normalize(centre, list(ops.MEAN), list(ops.STD)) for centre in centres]
    assert_close(ops.normalise(ops.to_unit(ops.centre_crop(images, 32))), want, 1e-6)


def scalar_noise(key: int, position: int) -> float:
    """The definition of `noise`, one number at a time in Python's integers."""

    def mix(bits: int) -> int:
        for _ in range(2):
            bits = ((bits ^ bits >> 16) * 0x45D9F3B) & 0xFFFFFFFF
        return bits ^ bits >> 16

    bits = mix(mix(((position + 1) * 0x9E3779B1 & 0xFFFFFFFF) ^ key) ^ key >> 7)
    return (sum(bits >> shift & 255 for shift in (0, 8, 16, 24)) - 510) / math.sqrt(4 * (256**2 - 1) / 12)


def test_noise_is_its_definition() -> None:
    keys = [0, 1, 2**32 - 1, 123456789]
    got = ops.noise(torch.tensor(keys), 3000)
    for row, key in enumerate(keys):
        for position in (0, 1, 2, 777, 2999):
            assert got[row, position].item() == pytest.approx(scalar_noise(key, position), abs=1e-5)


def test_noise_looks_like_noise() -> None:
    keys = torch.from_numpy(np.random.default_rng(0).integers(2**32, size=400))
    sample = ops.noise(keys, 1024).double()
    # 409 600 numbers: standard errors are .0016 of the mean and about .001 of the deviation.
    assert abs(sample.mean()) < 0.008 and abs(sample.std() - 1) < 0.006
    assert 3.2 < sample.abs().max() < 3.46
    quantiles = torch.quantile(sample.flatten()[::4], torch.tensor([0.025, 0.16, 0.84, 0.975]).double())
    # Of the sum of four uniform numbers: x^4 / 24 = .025 and (x^4 - 4 (x - 1)^4) / 24 = .16, standardised.
    want = torch.tensor([-1.942, -1.022, 1.022, 1.942]).double()
    torch.testing.assert_close(quantiles, want, atol=0.02, rtol=0)
    for shift in (1, 2, 16, 32):  # neighbours in a row, and rows of common widths
        assert abs((sample[:, shift:] * sample[:, :-shift]).mean()) < 0.008
    assert abs((sample[1:] * sample[:-1]).mean()) < 0.008
    # Keys that differ in one bit, and samples that average over keys, have nothing in common either.
    near = ops.noise(keys ^ 1, 1024).double()
    assert abs((sample * near).mean()) < 0.008
    assert abs(sample.mean(0).std() - 1 / math.sqrt(400)) < 0.006


def test_add_noise_is_grey_and_bounded(images: Tensor) -> None:
    half = torch.full((COUNT, 3, 40, 40), 0.5)
    noisy = ops.add_noise(half, torch.arange(COUNT), torch.full((COUNT,), 0.1))
    assert torch.equal(noisy[:, 0], noisy[:, 1]) and torch.equal(noisy[:, 0], noisy[:, 2])
    assert abs(noisy.std() - 0.1) < 0.003
    strong = ops.add_noise(images / 255, torch.arange(COUNT), torch.full((COUNT,), 1.0))
    assert strong.min() == 0 and strong.max() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(images: Tensor) -> None:
    gpu = images.cuda()
    boxes, flip = crops(COUNT, 40, 0.8, math.log(4 / 3), rng()), np.zeros(COUNT, np.bool_)
    here, there = cropped(images, boxes, flip, 32, 3), cropped(gpu, boxes, flip, 32, 3).cpu()
    torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
    assert torch.equal(ops.noise(torch.arange(9), 99), ops.noise(torch.arange(9).cuda(), 99).cpu())


@pytest.mark.parametrize("out", [40, 32, 17])
def test_window_is_a_crop_of_the_padded_image(images: Tensor, out: int) -> None:
    corner = torch.from_numpy(rng().integers(-30, 50, (COUNT, 2)))
    corner[0] = 0
    want = [
        tv.crop(tv.pad(image, [60, 60, 60, 60]), *(place + 60).tolist(), out, out)
        for image, place in zip(images, corner, strict=True)
    ]
    assert torch.equal(ops.window(images, corner, out), torch.stack(want))


def test_mirrored(images: Tensor) -> None:
    flip = torch.arange(COUNT) % 3 == 0
    got = ops.mirrored(images, flip)
    assert torch.equal(got[flip], images[flip].flip(3)) and torch.equal(got[~flip], images[~flip])


def test_solarise(images: Tensor) -> None:
    """Of pixels that are whole numbers, as torchvision does; 127 stays and 128 turns."""
    images[0, 0, 0, :3] = torch.tensor([127, 128, 255], dtype=torch.uint8)
    got = ops.solarise(ops.to_unit(images))
    torch.testing.assert_close(got, tv.solarize(images, 128) / 255, rtol=0, atol=1e-6)
