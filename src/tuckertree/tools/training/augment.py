"""Augmentation of a whole batch at once, on the device the images are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tuckertree.tools.training.randomness import SHIFT


def flip_crop(images: Tensor, moves: Tensor) -> Tensor:
    """Move images by up to four pixels, black coming in from outside, and mirror some.

    Parameters
    ----------
    images
        uint8 [N, C, H, W].
    moves
        int64 [N, at least 3], of :func:`~tuckertree.tools.training.randomness.draw_moves`.

    Returns
    -------
    Tensor
        The same shape and type.
    """
    number, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device) + moves[:, :1]
    columns = torch.arange(width, device=device) + moves[:, 1:2]
    columns = torch.where(moves[:, 2:3] == 1, columns.flip(1), columns)
    padded = functional.pad(images, (SHIFT,) * 4)
    return padded[
        torch.arange(number, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def cutout(images: Tensor, moves: Tensor) -> Tensor:
    """Blank a square of half the height around a random centre, cut off where it leaves the image.

    Parameters
    ----------
    images
        float [N, C, H, W], already normalised: blank is zero, the mean of the data set.
    moves
        int64 [N, 5], of :func:`~tuckertree.tools.training.randomness.draw_moves`.
    """
    height, width = images.shape[-2:]
    half = height // 4

    def near(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, device=images.device) - centre[:, None]
        return (distance >= -half) & (distance < height // 2 - half)

    blank = near(moves[:, 3], height)[:, :, None] & near(moves[:, 4], width)[:, None, :]
    return images.masked_fill(blank[:, None], 0)
