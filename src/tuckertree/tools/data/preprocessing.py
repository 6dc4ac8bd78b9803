"""From an image to the numbers a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from tuckertree._base.errors import TuckertreeError, UsageError, advice
from tuckertree._base.extras import require_extra

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a network.

    An image is first made ``size`` pixels large (:meth:`fit`), then its bytes ``x`` become
    ``(x * scale - mean) / std``, channel by channel (:meth:`normalise`).

    Attributes
    ----------
    size
        Height and width of the network's input.
    resize
        Length of the short side before the centre crop to ``size``; as much more as the image needs to cover ``size``,
        where that is no square. With None an image must have ``size`` already.
    mean, std
        Three numbers each, in the order of ``channels`` and in the unit that ``scale`` makes.
    scale
        Factor on the bytes 0..255: 1/255 for most networks, 1 for those from Caffe.
    channels
        Order of the colour channels the network expects.
    interpolation
        The filter of the resize.

    Raises
    ------
    UsageError
        If a length, a scale or a deviation is not positive, a mean not finite, ``resize`` shorter than the crop, or
        ``channels`` no such order.
    """

    size: tuple[int, int]
    resize: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    scale: float = 1 / 255
    channels: Literal["rgb", "bgr"] = "rgb"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise UsageError(f"size must be positive, not {self.size}")
        if self.resize is not None and self.resize < min(self.size):
            raise UsageError(f"resize {self.resize} is shorter than the crop {self.size}; make it larger")
        if self.channels not in ("rgb", "bgr"):
            raise UsageError(f"channels are in the order rgb or bgr, not {self.channels!r}")
        if not all(0 < value < inf for value in (self.scale, *self.std)):
            raise UsageError(f"scale and std must be positive, not {self.scale} and {self.std}")
        if not all(map(isfinite, self.mean)):
            raise UsageError(f"the mean must be three numbers, not {self.mean}")

    def normalise(self, images: Tensor) -> Tensor:
        """Turn RGB bytes into the network's input.

        Parameters
        ----------
        images
            uint8 [N, 3, H, W], channels in the order red, green, blue.

        Returns
        -------
        Tensor
            float32 [N, 3, H, W] on the same device.

        Raises
        ------
        UsageError
            If the images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"images must be uint8 [N, 3, H, W], not {images.dtype} {list(images.shape)}")
        if self.channels == "bgr":
            images = images.flip(1)
        mean, std = (_for_channels(tuple(values), images.device) for values in (self.mean, self.std))
        return (images.to(torch.float32) * self.scale - mean) / std

    def fit(self, image: Image) -> Tensor:
        """Make one picture as large as the network's input.

        Parameters
        ----------
        image
            A Pillow image with 8 bits for each channel; grey, palette and CMYK images become RGB.

        Returns
        -------
        Tensor
            uint8 [3, H, W], where H, W is ``size``.

        Raises
        ------
        TuckertreeError
            If ``resize`` is None and the image has another size, or if its channels have more than 8 bits.
        """
        if image.mode.startswith(("I", "F")):
            # Pillow would clip such values to 255: a white image and no error.
            raise TuckertreeError(f"pixels of mode {image.mode} are not 8-bit; convert them to 8-bit RGB")
        if self.resize is not None:
            image = self._centre_crop(self._scaled(image.convert("RGB"), self.resize))
        elif image.size != self.size[::-1]:
            raise self._wrong_size(image.height, image.width)
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()

    def fit_pixels(self, pixels: Tensor) -> Tensor:
        """Make one array of RGB bytes, uint8 [3, h, w], as large as the input: uint8 [3, H, W].

        Raises
        ------
        TuckertreeError
            If ``resize`` is None and the array has another size.
        """
        height, width = pixels.shape[1:]
        if (height, width) == self.size and self.resize in (None, min(self.size)):
            return pixels
        if self.resize is None:
            raise self._wrong_size(height, width)
        pillow = require_extra("PIL.Image", extra="vision")
        return self.fit(pillow.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))

    def _scaled(self, image: Image, length: int) -> Image:
        """Resize to this short side, or more to cover ``size``; the long side rounded down as torchvision does."""
        pillow = require_extra("PIL.Image", extra="vision")
        short = min(image.size)
        width, height = (length * side // short for side in image.size)
        if height < self.size[0]:
            width, height = self.size[0] * image.width // image.height, self.size[0]
        if width < self.size[1]:
            width, height = self.size[1], self.size[1] * image.height // image.width
        resized: Image = image.resize((width, height), pillow.Resampling[self.interpolation.upper()])
        return resized

    def _centre_crop(self, image: Image) -> Image:
        height, width = self.size
        # round() and not //: torchvision's CenterCrop rounds, and published accuracies were measured with it.
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def _wrong_size(self, height: int, width: int) -> TuckertreeError:
        wanted, size = "x".join(map(str, self.size)), ",".join(map(str, self.size))
        remedy = advice(
            typed=f"resize it, or give --input-size 3,{size} and all are resized", called="resize it"
        )
        return TuckertreeError(f"the image is {height}x{width} and must be {wanted}; {remedy}")


@lru_cache(maxsize=32)
def _for_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number for each channel, kept on the device: to send them there anew would make it wait each time."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)
