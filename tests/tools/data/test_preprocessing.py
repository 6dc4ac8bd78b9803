import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def photograph(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_normalise_is_torchvisions() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    expected = reference.normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(Preprocessing((4, 5)).normalise(images), expected)


def test_normalise_for_caffe_swaps_red_and_blue_before_the_mean() -> None:
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    caffe = Preprocessing((1, 1), mean=(104, 117, 123), std=(1, 1, 1), scale=1.0, channels="bgr")
    assert caffe.normalise(pixel).flatten().tolist() == [30 - 104, 20 - 117, 10 - 123]


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)])
def test_normalise_refuses_other_tensors(images) -> None:
    with pytest.raises(UsageError, match=r"must be uint8 \[N, 3, H, W\]"):
        Preprocessing((4, 4)).normalise(images)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(60, 41), (41, 60), (33, 33), (20, 25)])
def test_fit_is_torchvisions_resize_and_centre_crop(shape, interpolation) -> None:
    image = photograph(*shape)
    resized = reference.resize(image, [32], InterpolationMode(interpolation))
    expected = reference.pil_to_tensor(reference.center_crop(resized, [27, 30]))
    found = Preprocessing((27, 30), resize=32, interpolation=interpolation).fit(image)
    assert torch.equal(found, expected)


@given(*[st.integers(1, 40)] * 4)
def test_what_covers_the_input_is_only_made_as_large_as_it_must_be(height, width, tall, wide) -> None:
    preprocessing = Preprocessing((height, width), resize=min(height, width))
    image = photograph(tall, wide)
    assert preprocessing.fit(image).shape == (3, height, width)
    if (tall, wide) == (height, width):
        assert torch.equal(preprocessing.fit(image), reference.pil_to_tensor(image))
    scaled = preprocessing._scaled(image, min(height, width))
    assert scaled.height >= height
    assert scaled.width >= width
    assert scaled.height == height or scaled.width == width


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_fit_makes_rgb_of_other_modes(mode) -> None:
    assert Preprocessing((8, 8)).fit(photograph(8, 8).convert(mode)).shape == (3, 8, 8)


def test_fit_refuses_more_than_8_bits() -> None:
    with pytest.raises(TuckertreeError, match="not 8-bit"):
        Preprocessing((8, 8)).fit(Image.fromarray(np.zeros((8, 8), dtype=np.uint16)))


def test_fit_pixels_agrees_with_fit() -> None:
    image = photograph(40, 50)
    preprocessing = Preprocessing((16, 16), resize=20)
    assert torch.equal(preprocessing.fit_pixels(reference.pil_to_tensor(image)), preprocessing.fit(image))


def test_without_resize_the_size_must_be_right() -> None:
    preprocessing = Preprocessing((8, 9))
    for fit, image in (
        (preprocessing.fit, photograph(9, 8)),
        (preprocessing.fit_pixels, torch.zeros(3, 9, 8)),
    ):
        with pytest.raises(TuckertreeError, match="the image is 9x8 and must be 8x9; resize it"):
            fit(image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 8)}, "size must be positive"),
        ({"size": (8, 8), "resize": 7}, "resize 7 is shorter than the crop"),
        ({"size": (8, 8), "scale": 0.0}, "scale and std must be positive"),
        ({"size": (8, 8), "std": (1.0, 0.0, 1.0)}, "scale and std must be positive"),
    ],
)
def test_refuses_values_that_cannot_be(changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocessing(**changes)
